"""Making a package: what `optimize`, `run` and `run-pass` share, from a plan to what is printed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from drupe.api import Record, UsageError
from drupe_commands.messages import tell

if TYPE_CHECKING:
    from drupe.api import Model, Plan, Request
    from drupe_commands.measured import Configured, Measured


class Making(Record):
    """How the user wants a package to be made, and told of. measure: what measures it when it is made."""

    context: typer.Context
    output: Path | None
    force: bool
    only_plan: bool
    as_json: bool
    log_level: int
    measure: Configured = ()

    def of_request(self, request: Request, save_plan: Path | None = None) -> None:
        """Compose the plan of a request, then carry it out, or only show it."""
        from drupe import api
        from drupe_commands.fitting import with_what_fits

        started = self.begin()
        plan, source = api.plan_of(request, api.registry())
        with with_what_fits(request):
            self.of_plan(plan, source, started, save_plan)

    def of_plan(self, plan: Plan, source: Model, started: float, save_plan: Path | None = None) -> None:
        """Carry a plan out, or only show it."""
        from drupe import api
        from drupe_commands.previewing import preview_of, show_preview
        from drupe_commands.summing_up import print_outcome, show_outcome
        from drupe_console import progress

        if save_plan is not None:
            write_plan(api.registry().publisher().fixed(plan, source), save_plan)
        if self.only_plan:
            show_preview(preview_of(plan, source), self.output or Path("package"), self.as_json)
            _note_many_threads(plan)
            return
        publisher, output = api.registry().publisher(), self.named_output()
        outcome = publisher.carry_out(plan, source, output, force=self.force, progress=progress(), started=started)
        if not self.as_json:  # before the package is measured, which may take long
            show_outcome(outcome, plan)
        measured = self._measured(str(output), plan)
        if self.as_json:
            print_outcome(outcome, measured)
        elif measured is not None:
            print()
            measured.show()
        _note_many_threads(plan)
        if measured is not None and measured.failure:
            raise measured.failure

    def _measured(self, package: str, plan: Plan) -> Measured | None:
        """What the workflow wants measured of the package, which keeps it; None where the workflow wants nothing."""
        if not self.measure:
            return None
        from drupe_commands.measured import measured_here

        measured = measured_here(self.measure, package, plan.source.reference)
        measured.keep(package, plan.source.reference)
        return measured

    def begin(self) -> float:
        """Set up what is told of the run; returns the time.

        Raises UsageError where a package is to be made, and no folder for it is named.
        """
        from drupe import api
        from drupe_console import Narrator

        started = time.perf_counter()
        self.context.find_root().ensure_object(dict)["debug"] = self.log_level == 2
        if not self.only_plan:
            self.named_output()
        api.listen(Narrator(self.log_level))
        return started

    def named_output(self) -> Path:
        """The output folder. Raises UsageError where none is named."""
        if self.output is None:
            raise UsageError("no output folder is named", cure="-o OUT")
        return self.output


def _note_many_threads(plan: Plan) -> None:
    """Say that a package made for a larger machine is slow on this one."""
    from drupe.api import usable_threads

    if plan.threads > (here := usable_threads()):
        what = f"the package takes {plan.threads} threads, and this machine runs {here} at once: it is slower here"
        tell(f"note: {what} than with --threads {here}")


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan as JSON. Raises OutputError where that cannot be done."""
    from drupe_files import disk_errors

    with disk_errors(path):
        path.write_text(plan.model_dump_json(indent=1) + "\n", encoding="utf-8")


def chosen_provider(name: str | None, device: str | None) -> str:
    """The provider's name: as given, or the only one for a kind of device; both have to agree. Empty where none is."""
    from drupe.api import registry

    if device is None:
        return name or ""
    found = registry()
    kinds: dict[str, list[str]] = {}
    for entry in found.providers:
        kinds.setdefault(entry.ref.device, []).append(entry.ref.name)
    if device.lower() not in kinds:
        raise UsageError(
            f"no provider is for the device '{device}'{found.why_missing(device)}",
            cure=f"--device {' or '.join(sorted(filter(None, kinds)))}",
        )
    candidates = kinds[device.lower()]
    if name is not None:
        chosen = found.providers.find(name).ref.name
        if chosen not in candidates:
            raise UsageError(f"--provider {name} is not for --device {device}", cure="give one of the two")
        return chosen
    if len(candidates) > 1:
        raise UsageError(
            f"several providers are for the device '{device}'", cure=f"--provider {' or '.join(candidates)}"
        )
    return candidates[0]
