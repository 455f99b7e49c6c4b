"""`drupe inspect`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from drupe.api import Model


def inspect(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, package folder or hub id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say what a model or a package is, and whether it is supported; reads no weight."""
    from drupe.api import registry, resolve, table

    found = resolve(model, {})
    facts = {"kind": found.kind, "location": str(found.location)}
    facts |= registry().kinds.make(found.kind).describe(found)
    facts |= _support(found)
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        table(facts.items())


def _support(model: Model) -> dict[str, str]:
    """Whether the first pass of the default recipe can do this model; nothing for what needs no first pass."""
    from drupe.api import DEFAULT_PROVIDER, registry

    recipe = registry().provider(DEFAULT_PROVIDER).recipes()[0]
    first = registry().passes.make(recipe.steps[0].name)
    if first.requires.kind != model.kind:
        return {}
    reason = first.refusal(model)
    return {"supported": f"no: {reason}" if reason else "yes"}
