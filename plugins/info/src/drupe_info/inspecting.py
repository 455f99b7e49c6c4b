"""`drupe inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe_info.showing import AsJson, print_facts, print_json

if TYPE_CHECKING:
    from drupe.api import Model


def inspect(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, package folder or hub id.")],
    as_json: AsJson = False,
) -> None:
    """Say what a model or a package is, and whether it is supported; reads no weight."""
    from drupe.api import registry, resolve

    found = resolve(model, {})
    facts = {"kind": found.kind, "location": str(found.location)}
    facts |= registry().kinds.make(found.kind).describe(found)
    facts |= _support(found)
    (print_json if as_json else print_facts)(facts)


def _support(model: Model) -> dict[str, Any]:
    """Whether the first pass of the default recipe can do this model; nothing for what needs no first pass."""
    from drupe.api import DEFAULT_PROVIDER, DrupeError, registry

    recipe = registry().provider(DEFAULT_PROVIDER).recipes()[0]
    first = registry().passes.make(recipe.steps[0].name)
    if first.requires.kind != model.kind:
        return {}
    try:
        first.refuse(model)
    except DrupeError as error:
        return {"supported": False, "why not": error.what, "cure": error.cure}
    return {"supported": True}
