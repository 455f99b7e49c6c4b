"""What is printed when a package was made: sizes, times, and what came of trying it."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from drupe.api import asdict, replace
from drupe_commands.messages import tell, tell_notices

if TYPE_CHECKING:
    from drupe.api import Check, Notice, Outcome, Plan
    from drupe_commands.measured import Measured

ALIKE = 1.05
"""Sizes whose ratio is below this are one size to a person."""
FEW = 4
"""Metrics of the comparison that are shown; evaluators give the most telling ones first."""
LONGEST = 80
"""Characters of what the package did that are shown."""
PASSED = re.compile(r"(?<!-o )\bOUT\b")
"""The package in the cure of a notice; `-o OUT` is another one."""


def print_outcome(outcome: Outcome, measured: Measured | None) -> None:
    """Print what a run has made as JSON, and what was measured of it."""
    more = {} if measured is None else {"measured": measured.document()}
    print(json.dumps({**asdict(outcome), **more}, indent=1, default=str))


def show_outcome(outcome: Outcome, plan: Plan) -> None:
    """Print what a run has made, for a person."""
    from drupe_console import size

    package = shlex.quote(str(outcome.output))
    peak = f", {size(outcome.peak_bytes)} of memory at most" if outcome.peak_bytes else ""
    print(f"{outcome.output}: {size(outcome.bytes)}{compared(outcome.bytes, outcome.source_bytes)}")
    print(f"converted in {outcome.conversion_seconds:.1f} s{peak}")
    if outcome.check.not_run is not None:
        print(f"{'not run here' if plan.check.run else 'not checked'}: {outcome.check.not_run}")
    else:
        print(f"checked in {outcome.check.seconds:.1f} s: {outcome.check.runtime} runs it")
        if outcome.check.text:
            print(f"  {_short(outcome.check.text)}")
        print(f"compared with its source: {_comparison(outcome.check)}")
        if _knows_the_text(outcome):
            print("  on the text that it was calibrated with: on another one it is farther from its source")
    if (outcome.check.not_run or outcome.check.not_compared) and (asked := list(_asked_of_the_comparison(plan))):
        print(f"  {', '.join(asked)}: not measured; drupe evaluate {package} --against MODEL does it where it runs")
    tell_notices(_named(notice, package) for notice in outcome.notices)
    if outcome.check.not_run is None and _generates(plan):
        tell(f'try it: drupe generate {package} "def parse("')


def _named(notice: Notice, package: str) -> Notice:
    """A notice whose cure names the package, which a pass calls OUT: it does not know where it will be."""
    return replace(notice, cure=PASSED.sub(lambda _: package, notice.cure))


def _short(text: str) -> str:
    """What a package did when it was tried, in one short line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _comparison(check: Check) -> str:
    """How the package compares with its source, or why that is not known. Each adapter has a line of its own."""
    from drupe.api import RECORD
    from drupe_console import figure
    from drupe_onnx.switching import WITH_ADAPTER

    if check.not_compared:
        return f"not here: {check.not_compared}"
    told: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in check.metrics.items():
        metric, _, adapter = name.partition(WITH_ADAPTER)
        told[adapter].append(f"{metric.replace('_', ' ')} {figure(value)} {check.units.get(name, '')}".rstrip())
    lines = [
        (f"\n  with the adapter {adapter}: " if adapter else "")
        + ", ".join(metrics[:FEW])
        + (f", and {len(metrics) - FEW} more in {RECORD}" if len(metrics) > FEW else "")
        for adapter, metrics in told.items()
    ]
    return "".join(lines)


def compared(made: int, source: int | None) -> str:
    """How much smaller than its source a package is, in words."""
    if not source:
        return ""
    smaller = made <= source
    ratio = source / made if smaller else made / source
    if ratio < ALIKE:
        return ", as large as its source"
    return f", {ratio:.1f} times {'smaller' if smaller else 'larger'} than its source"


def _knows_the_text(outcome: Outcome) -> bool:
    """Whether the package was compared with its source on what it was calibrated with, which flatters it."""
    from drupe.api import RECORD

    compared_on = outcome.check.settings.get("evaluation_fingerprint")
    passes = json.loads((outcome.output / RECORD).read_text(encoding="utf-8"))["passes"]
    return bool(compared_on) and any(compared_on == each["config"].get("calibration_fingerprint") for each in passes)


def _asked_of_the_comparison(plan: Plan) -> Iterable[str]:
    """The options that the user gave for the comparison with the source, as they are typed."""
    from drupe.api import flag, registry

    if plan.check.evaluator is None:
        return
    evaluator = registry().evaluators.make(plan.check.evaluator)
    for name in evaluator.options.values():
        if name in plan.options:
            yield f"{flag(name)} {plan.options[name]}"


def _generates(plan: Plan) -> bool:
    """Whether the package is one that `drupe generate` takes."""
    from drupe.api import registry

    task, tasks = plan.source.task, registry().tasks
    return task is not None and task in tasks and "generate" in tasks.make(task).offers
