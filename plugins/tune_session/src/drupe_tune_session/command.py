"""`drupe tune-session`: find the fastest settings of a package's session, and write them into the package."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe.api import UsageError
from drupe_tune_session.plugin import NAME

if TYPE_CHECKING:
    from drupe_tune_session.trying import Tuning
    from drupe_tune_session.tune_session import TuneSessionConfig

MEASURING = "Measuring"
COLUMNS = ("tried", "against", "time, by the median", "")


def tune_session(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="A folder that `drupe optimize` made.")],
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="<float>",
            help="About how long it may take.  [default: 10]",
            show_default=False,
            rich_help_panel=MEASURING,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="<key=value>",
            help="Set a key of the pass tune-session, which drupe passes tune-session lists: threads=4 is written, not "
            'measured; values={"threads": [2, 4]} is tried; may be given several times.',
            rich_help_panel=MEASURING,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Find the fastest settings of a package on this machine, and write them into it.

    What is tried is what the package's provider declares: on a processor the number of threads, whether they spin while
    they wait, what onnxruntime does to the graph, and its memory arena. One setting after the other is compared with
    the package as it is, in turn. A difference within the noise changes nothing, and where nothing changes, nothing is
    written. The package is exchanged in one step when all is measured, with a true drupe.json: whatever interrupts the
    command, it is whole.
    """
    from drupe_console import table
    from drupe_timing import disturbance
    from drupe_tune_session.telling import document_of, outcome_of, rows_of

    config = _config(seconds, settings or [])
    busy = disturbance()
    tuning, replaced, changed, provider = _tuned(package, config)
    if as_json:
        facts = {"package": str(package), "provider": provider, "changed": changed, "disturbance": busy}
        print(json.dumps({**facts, **document_of(tuning, replaced)}, indent=1))
        return
    table(rows_of(tuning), COLUMNS)
    handling, what = outcome_of(tuning, replaced)
    print(f"\n{package}, {handling}: {what}")
    if not changed:
        print("the package is as it was")
    if busy:
        print(f"note: {busy}: tune it again when the machine is quiet", file=sys.stderr)


def _config(seconds: float | None, texts: list[str]) -> TuneSessionConfig:
    """The configuration that the user gives. Raises UsageError for one that is wrong."""
    from drupe.api import configure
    from drupe_tune_session.tune_session import TuneSessionConfig

    given: dict[str, Any] = {} if seconds is None else {"seconds": seconds}
    named = {"seconds": "--seconds"}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key.strip() or not equals:
            raise UsageError(f"--set takes KEY=VALUE, not '{text}'", cure="--set threads=4")
        key = key.strip()
        if key in ("when", "chosen", "replaced"):
            raise UsageError(f"--set {key} has no effect: the command measures", cure="leave it out")
        named[key] = f"--set {key}"
        try:
            given[key] = json.loads(value)
        except ValueError:
            given[key] = value
    config = configure(f"pass '{NAME}'", TuneSessionConfig, given, named)
    if not config.seconds:
        raise UsageError("nothing can be measured in 0 s", where="--seconds", cure="--seconds 10")
    return config


def _tuned(package: Path, config: TuneSessionConfig) -> tuple[Tuning, dict[str, Any], bool, str]:
    """Tune a package in place: what came of it, what was replaced, whether the package has changed, its provider."""
    from drupe.api import provider_of, registry, resolve_package, runtime_for, target_of
    from drupe_console import progress
    from drupe_files.output_folders import prepared, publish, staging
    from drupe_tune_session.measuring import measured, refuse_too_large
    from drupe_tune_session.record import earlier_choice, record_choice, recorded_in
    from drupe_tune_session.session_file import SessionFile
    from drupe_tune_session.telling import document_of
    from drupe_tune_session.tunable_settings import known_settings, settings_to_try

    found = registry()
    model = resolve_package(str(package), found)
    record, plan = recorded_in(model.location)
    provider = provider_of(model, None, found)
    target = target_of(provider, found)
    runtime_for(model, target, provider, found)  # raises its error before the work
    settings = settings_to_try(provider, config)
    if not settings:
        what = f"there is nothing to try: the provider '{provider.name}' declares no other setting"
        raise UsageError(what, cure='--set values={"threads": [1, 2]} names values to try')
    refuse_too_large(model.location, target)
    output = model.location
    with prepared(output, None, force=True), staging(output) as folder:
        _link(output, folder)
        SessionFile(folder, known_settings(provider)).write({**earlier_choice(plan), **config.fixed})
        tuning, file = measured(folder, model.task, provider, settings, config.seconds, progress())
        replaced = {name: file.value(name) for name in tuning.chosen}
        changed = _differ(folder / file.name, output / file.name)
        if changed:
            kept: dict[str, Any] = {"chosen": dict(tuning.chosen), **({"replaced": replaced} if replaced else {})}
            configured = type(config)(**{**config.model_dump(exclude_unset=True), **kept})
            told = document_of(tuning, replaced)
            record_choice(folder, record, plan, configured, told, file.name, found)
            aside = publish(folder, output, force=True)
            if aside:
                shutil.rmtree(aside, ignore_errors=True)
    return tuning, replaced, changed, provider.name


def _link(package: Path, folder: Path) -> None:
    """Put all files of a package into another folder, as links where the disk has them."""
    from drupe_onnx import link_or_copy

    for path in sorted(package.rglob("*")):
        there = folder / path.relative_to(package)
        if path.is_dir():
            there.mkdir(parents=True, exist_ok=True)
        else:
            there.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, there)


def _differ(one: Path, other: Path) -> bool:
    contents = [path.read_bytes() if path.is_file() else None for path in (one, other)]
    return contents[0] != contents[1]
