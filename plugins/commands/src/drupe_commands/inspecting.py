"""`drupe inspect`: what a model or a package is, and what Drupe would do with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe.api import asdict
from drupe_commands.flags import FlagApp, declared_options
from drupe_commands.messages import tell_notices
from drupe_commands.parameters import MODEL
from drupe_commands.showing import AsJson, print_facts, print_json, print_records
from drupe_files.package_record import from_record

if TYPE_CHECKING:
    from drupe.api import Model, Notice

FAMILIES = "drupe_decoder_families"
"""The hook in which plugins list the families of decoders that they build."""


def inspect(
    *,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Checkpoint folder, .onnx file, package folder or hub id.", rich_help_panel=MODEL
        ),
    ] = None,
    families: Annotated[
        bool, typer.Option("--families", help="List the families of decoders that can be built, instead.")
    ] = False,
    as_json: AsJson = False,
    options: Mapping[str, Any],
) -> None:
    """Say what a model or a package is, what it is composed of, and whether it is supported; reads no weight.

    For a model of which no package can be made, the exit status is that of drupe optimize.
    """
    from drupe.api import UsageError, registry, resolve

    if families and model is not None:
        what = f"--families lists all families, and says nothing of '{model}'"
        raise UsageError(what, cure=f"drupe inspect {model}, or drupe inspect --families")
    if families:
        _list_families(as_json)
        return
    if model is None:
        raise UsageError("no model is named", cure="drupe inspect MODEL, or drupe inspect --families")
    found = registry()
    resolved = resolve(model, options, found)
    support, notices, status = _support(model, resolved, options)
    facts: dict[str, Any] = {
        "kind": resolved.kind,
        "location": str(resolved.location),
        "task": resolved.task,
        "parts": _parts(resolved),
        **found.kinds.make(resolved.kind).describe(resolved),
        **support,
    }
    if as_json:
        print_json({**facts, "notices": [asdict(notice) for notice in notices]})
    else:
        print_facts(facts)
        tell_notices(notices)
    raise typer.Exit(status)


class Inspect(FlagApp):
    """The command, with the options that are read while a model is looked for."""

    def __init__(self) -> None:
        from drupe.api import registry

        finding = [option for option in declared_options(registry()) if option.source]
        super().__init__("inspect", inspect, finding, registry())


def _list_families(as_json: bool) -> None:
    """Every family of decoders that a plugin builds."""
    from drupe.api import registry

    listed = registry().offered("decoder family", FAMILIES)
    records = [
        {"family": entry.ref.name, "what it is": entry.ref.summary, "brought by": entry.plugin.distribution}
        for entry in listed
    ]
    (print_json if as_json else print_records)(records)


def _parts(model: Model) -> list[dict[str, Any]]:
    """The parts by role, with what is stated of each."""
    several = len(model.parts) > 1
    return [
        {
            "label": f"part {role}" if several else "facts",
            "text": ", ".join(f"{name} = {value}" for name, value in facts.items()) or ("-" if several else ""),
            "role": role,
            "facts": dict(facts),
        }
        for role, facts in model.parts.items()
    ]


def _support(reference: str, model: Model, options: Mapping[str, Any]) -> tuple[dict[str, Any], Iterable[Notice], int]:
    """The passes that `drupe optimize` would run on this machine, or why it would run none; and what it would notice.

    The last is the exit status with which it would refuse the model; 0 where it would not. Of a package, only what was
    noticed when it was made. The passes are not previewed where weights would have to be downloaded first.
    """
    from drupe.api import DrupeError, Notice, Request, Unfit, plan_of, registry
    from drupe_commands.fitting import with_what_fits
    from drupe_commands.previewing import preview_of

    kept = from_record(model.location, lambda record: [Notice(**each) for each in record.get("notices", ())])
    if kept is not None:
        return {}, kept, 0
    notices, request = model.notices, Request(reference, options=options)
    try:
        plan, source = plan_of(request, registry())
        composed: Mapping[str, Any] = {}
        for first in plan.passes[:1]:
            composed = registry().passes.make(first.name).describe(source)
        if registry().kinds.make(source.kind).here(source):
            with with_what_fits(request):
                preview = preview_of(plan, source)
                notices = preview.notices
                if preview.problems:
                    what = f"it would not run on {preview.provider}: {preview.problems[0]}"
                    raise Unfit(what, cure="drupe optimize MODEL -o OUT --provider NAME, with another one")
    except DrupeError as error:
        return {"supported": False, "why not": error.what, "cure": error.cure}, notices, error.exit_status
    support = {
        **composed,
        "supported": True,
        "target": {
            "text": f"{plan.target.provider}, {plan.target.precision}",
            "provider": plan.target.provider,
            "precision": plan.target.precision,
        },
        "passes": {"text": plan.chain, "names": [each.name for each in plan.passes]},
    }
    return support, notices, 0
