"""What `--plan` prints: the passes, what the output takes, and what does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Record, asdict
from drupe_commands.messages import tell_notices

if TYPE_CHECKING:
    from drupe.api import Estimate, Model, Notice, Plan, ReadyPass, Run, Target

START_UP, DISK_RATE, WORK_RATE = 1.0, 1e9, 1e8
"""For guesses: seconds, bytes a second, and parameters a second on one thread."""


class Preview(Record):
    """What a run would do, known without reading a weight.

    unforeseen: the first pass of which only its work shows what it makes, "" without one; there is no estimate then.
    """

    source: Model
    target: Target
    plan: Plan
    run: Run
    estimate: Estimate | None
    threads: int
    problems: tuple[str, ...]
    notices: tuple[Notice, ...]
    unforeseen: str = ""

    @property
    def provider(self) -> str:
        """The target's provider, with the plugin that brings it."""
        entry = self.run.found.providers.find(self.target.provider)
        return f"'{entry.ref.name}' of {entry.plugin.title}"


def preview_of(plan: Plan, source: Model) -> Preview:
    """Check a plan, and tell what the output will take, as far as no costly pass decides on that."""
    from drupe.api import Job, new_id, preview, ready, refuse_uncheckable, registry
    from drupe_files import scratch

    found = registry()
    with scratch() as folder:
        run = ready(Job(plan, source, new_id(), folder), found)
        refuse_uncheckable(run)
        model = preview(run)
        kind = found.kinds.make(model.kind)
        unforeseen = next((step.planned.name for step in run.passes if not step.is_foreseen), "")
        return Preview(
            source=source,
            target=run.context.target,
            plan=plan,
            run=run,
            estimate=None if unforeseen else kind.estimate(model, run.context),
            threads=run.context.threads,
            problems=() if unforeseen else tuple(kind.check(model, run.context.target)),
            notices=model.notices,
            unforeseen=unforeseen,
        )


def show_preview(preview: Preview, output: Path, as_json: bool) -> None:
    """Print what a run would do, for a person or as JSON. output: the folder that it would make."""
    free = free_bytes(output)
    if as_json:
        print(json.dumps({**_facts(preview), "disk_free_bytes": free}, indent=1))
        return
    _print_passes(preview)
    _print_estimate(preview, free)
    for problem in preview.problems:
        print(f"would not run on {preview.provider}: {problem}")
    tell_notices(preview.notices)


def _print_passes(preview: Preview) -> None:
    from drupe_console import size, table

    rows = [(each.planned.name, each.plugin.distribution, _settings(each)) for each in preview.run.passes]
    table(rows, ("pass", "brought by", "configuration"))
    for line in _strangers(preview):
        print(line)
    print()
    if (estimate := preview.estimate) and estimate.weights:
        weights = [
            (f"{each.role}, rows {each.rows}" if each.rows else each.role, each.scheme, each.blocks, size(each.bytes))
            for each in estimate.weights
            if each.bytes
        ]
        table(weights, ("weights", "stored as", "blocks", "bytes"))
        print()


def _strangers(preview: Preview) -> Iterator[str]:
    """Who has put passes into the plan, or changed them, and does not ship with Drupe."""
    shipped = {plugin.distribution for plugin in preview.run.found.plugins if plugin.shipped}
    for step in preview.run.passes:
        planned = step.planned
        if planned.placed_by not in shipped | {"", "the user"}:
            yield f"{planned.placed_by} placed {planned.name}"
        for distribution in planned.amended_by:
            if distribution not in shipped:
                yield f"{distribution} added or changed {planned.name}"
    signed = {distribution for step in preview.run.passes for distribution in step.planned.amended_by}
    for distribution in preview.plan.amended_by:
        if distribution not in shipped | signed:  # it has taken a pass away, or another order is its own
            yield f"{distribution} changed the plan"


def _print_estimate(preview: Preview, free: int | None) -> None:
    from drupe_console import size

    estimate = preview.estimate
    if estimate is None:
        if preview.unforeseen:
            print(f"only its work shows what {preview.unforeseen} makes: sizes and time are not known before")
        return
    print(
        f"reads {size(estimate.read_bytes)}, writes {size(estimate.output_bytes)}, "
        f"holds about {size(estimate.weights_held_bytes)} of weights in memory, {_time(preview)}"
    )
    if _costly(preview):
        print("what is measured on the way decides how some weights are stored; until then the bytes are an estimate")
    if free is not None and free < estimate.output_bytes:
        print(f"would not fit: the disk of the output has {size(free)} free")


def _time(preview: Preview) -> str:
    """How long it takes, in words; of a costly pass what its time depends on, where it says so."""
    told = f"takes about {_seconds(preview):.0f} s with {preview.threads} threads"
    alike: dict[str, list[str]] = {}
    for each in _costly(preview):
        alike.setdefault(each.runner.grows_with, []).append(each.planned.name)
    for grows_with, names in alike.items():
        told += f", not counting {' and '.join(names)}"
        told += f", whose time grows with {grows_with}" if grows_with else ""
    return told


def _costly(preview: Preview) -> list[ReadyPass]:
    """The passes that measure and compute on the way."""
    return [step for step in preview.run.passes if step.runner.costly]


def _seconds(preview: Preview) -> float:
    """About how long it takes: start-up, the disk's share, and the computation spread over the threads.

    What costly passes take is not in it.
    """
    if preview.estimate is None:
        return 0.0
    moved = (preview.estimate.read_bytes + preview.estimate.output_bytes) / DISK_RATE
    return START_UP + max(moved, preview.estimate.work / (WORK_RATE * preview.threads))


def free_bytes(output: Path) -> int | None:
    """What is free on the disk that a folder is on, or would be; None where the system does not say."""
    folder = next((each for each in (output, *output.absolute().parents) if each.is_dir()), None)
    try:
        return shutil.disk_usage(folder).free if folder else None
    except OSError:
        return None


def _facts(preview: Preview) -> dict[str, Any]:
    """What a program reads of a preview; the plan in it is what `drupe run` takes."""
    costly = [each.planned.name for each in _costly(preview)]
    return {
        "source": str(preview.source.location),
        "provider": preview.target.provider,
        "runtime_version": preview.target.runtime_version,
        "recipe": preview.plan.recipe,
        "threads": preview.threads,
        "measures": costly,
        "seconds": None if costly else round(_seconds(preview), 1),
        "estimate": preview.estimate and asdict(preview.estimate),
        "unforeseen": preview.unforeseen or None,
        "problems": preview.problems,
        "notices": [asdict(notice) for notice in preview.notices],
        "passes": [
            {
                "name": each.planned.name,
                "brought_by": each.plugin.distribution,
                "placed_by": each.planned.placed_by,
                "amended_by": each.planned.amended_by,
                "config": each.config.model_dump(mode="json"),
            }
            for each in preview.run.passes
        ],
        "plan": preview.run.found.publisher().fixed(preview.plan, preview.source).model_dump(mode="json"),
    }


def _settings(step: ReadyPass) -> str:
    keys = {*type(step.config).model_fields}  # without what is computed of them, such as fingerprints
    values = {key: value for key, value in step.config.model_dump(include=keys).items() if value is not None}
    words = ", ".join(f"{key}={value}" for key, value in values.items())
    return f"{words} (of {', '.join(step.planned.parts)})" if step.planned.parts else words
