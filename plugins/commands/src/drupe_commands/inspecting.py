"""`drupe inspect`: what a model or a package is, and what Drupe would do with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe_commands.showing import AsJson, print_facts, print_json

if TYPE_CHECKING:
    from drupe.api import Model


def inspect(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, .onnx file, package folder or hub id.")],
    as_json: AsJson = False,
) -> None:
    """Say what a model or a package is, and whether it is supported; reads no weight."""
    from drupe.api import registry, resolve

    found = registry()
    resolved = resolve(model, {}, found)
    facts = {
        "kind": resolved.kind,
        "location": str(resolved.location),
        "task": resolved.task,
        **_parts(resolved),
        **found.kinds.make(resolved.kind).describe(resolved),
        **_support(model, resolved),
    }
    (print_json if as_json else print_facts)(facts)


def _parts(model: Model) -> dict[str, Any]:
    """The roles of the parts, where there are several, and what is stated of each."""
    if len(model.parts) == 1:
        return {"facts": _words(model.facts)}
    return {"parts": list(model.parts), **{f"facts of {role}": _words(held) for role, held in model.parts.items()}}


def _words(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in facts.items()) or "none"


def _support(reference: str, model: Model) -> dict[str, Any]:
    """The passes that `drupe optimize` would run on this machine, or why it would run none; nothing of a package."""
    from drupe.api import RECORD, DrupeError, Request, plan_of, registry

    if (model.location / RECORD).is_file():
        return {}
    try:
        plan, source = plan_of(Request(reference), registry())
        for first in plan.passes[:1]:
            registry().passes.make(first.name).refuse(source)
    except DrupeError as error:
        return {"supported": False, "why not": error.what, "cure": error.cure}
    return {"supported": True, "for": f"{plan.target.provider}, {plan.target.precision}", "passes": plan.chain}
