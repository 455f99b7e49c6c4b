"""`drupe inspect`: what a model or a package is, and what Drupe would do with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe_commands.notices import print_notices
from drupe_commands.showing import AsJson, print_facts, print_json

if TYPE_CHECKING:
    from drupe.api import Model, Notice


def inspect(
    model: Annotated[str, typer.Argument(help="Checkpoint folder, .onnx file, package folder or hub id.")],
    as_json: AsJson = False,
) -> None:
    """Say what a model or a package is, and whether it is supported; reads no weight."""
    from drupe.api import registry, resolve

    found = registry()
    resolved = resolve(model, {}, found)
    support, notices = _support(model, resolved)
    facts: dict[str, Any] = {
        "kind": resolved.kind,
        "location": str(resolved.location),
        "task": resolved.task,
        **_parts(resolved),
        **found.kinds.make(resolved.kind).describe(resolved),
        **support,
    }
    if as_json:
        print_json({**facts, "notices": [asdict(notice) for notice in notices]})
        return
    print_facts(facts)
    print_notices(notices)


def _parts(model: Model) -> dict[str, Any]:
    """The roles of the parts, where there are several, and what is stated of each that something is stated of."""
    if len(model.parts) == 1:
        return {"facts": _words(model.facts)} if model.facts else {}
    stated = {f"facts of {role}": _words(held) for role, held in model.parts.items() if held}
    return {"parts": list(model.parts), **stated}


def _words(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in facts.items())


def _support(reference: str, model: Model) -> tuple[dict[str, Any], Iterable[Notice]]:
    """The passes that `drupe optimize` would run on this machine, or why it would run none; and what it would notice.

    Of a package, only what was noticed when it was made. The passes are not previewed where weights would have to be
    downloaded first.
    """
    from drupe.api import RECORD, DrupeError, Notice, Request, plan_of, registry
    from drupe_commands.previewing import preview_of

    if (record := model.location / RECORD).is_file():
        kept = json.loads(record.read_text(encoding="utf-8")).get("notices", ())
        return {}, [Notice(**each) for each in kept]
    notices = model.notices
    try:
        plan, source = plan_of(Request(reference), registry())
        for first in plan.passes[:1]:
            registry().passes.make(first.name).refuse(source)
        if registry().kinds.make(source.kind).here(source):
            notices = preview_of(plan, source).notices
    except DrupeError as error:
        return {"supported": False, "why not": error.what, "cure": error.cure}, notices
    support = {"supported": True, "for": f"{plan.target.provider}, {plan.target.precision}", "passes": plan.chain}
    return support, notices
