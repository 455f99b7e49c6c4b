"""Running a plan, and writing, checking, recording and publishing the result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drupe.api import (
    Cancelled,
    Check,
    Event,
    InProcess,
    Job,
    Model,
    NotChecked,
    Observers,
    Outcome,
    Plan,
    Progress,
    Registry,
    Run,
    Runner,
    Unfit,
    new_id,
    preview,
    ready,
    refuse_uncheckable,
    registry,
)
from drupe_files import FolderCache, disk_errors, folder_bytes, peak_memory, scratch
from drupe_files.output_folders import prepared, publish, staging
from drupe_publishing.finishing import finish
from drupe_publishing.recording import record
from drupe_publishing.telling import told


def carry_out(
    plan: Plan,
    source: Model,
    output: Path,
    force: bool,
    progress: Progress,
    runner: Runner | None,
    started: float,
) -> Outcome:
    """Run a plan on its source and publish the result. Afterwards `output` is a package that runs, or is unchanged.

    runner: None for this process, with the user's cache. started: when the job was taken on, by `time.perf_counter`.
    """
    found = registry()
    with prepared(output, source.location, force), scratch() as folder, FolderCache() as cache:
        observers = Watching(found)
        job = Job(plan, source, new_id(), folder, emit=observers, progress=progress)
        run = ready(job, found)
        costly = {step.planned.name for step in run.passes if step.runner.costly}
        if runner is None:
            runner, observers.costly = InProcess(cache), costly
            if costly:
                cache.prepare(run)
        refuse_uncheckable(run)
        if costly:  # the errors of later passes, and of what they make, come before the work of earlier ones
            foreseen = preview(run)
            if all(step.is_foreseen for step in run.passes):
                _refuse_unfit(foreseen, run)
        with _told_of_the_end(run, str(output), started, observers):
            with told(run, "run", plan.source.reference):
                model = runner.run(job)
            return publish_model(_refuse_unfit(model, run), run, output, force, started, observers.passes)


class Watching(Observers):
    """The observers of a run, what its passes took, and which of them is the last whose result is kept for another run.

    costly: the passes whose results are kept. passes: of each pass that has ended, its wall time in seconds, the most
    memory that this process had held by then, in bytes, and whether it came from the cache.
    """

    def __init__(self, found: Registry) -> None:
        super().__init__(found)
        self.costly: set[str] = set()
        self.kept = ""
        self.passes: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        if event.name in ("pass-finished", "pass-cached"):
            cached = event.name == "pass-cached"
            took = {"name": event.subject, "seconds": round(event.seconds or 0.0, 3), "peak_bytes": peak_memory()}
            self.passes.append({**took, "from_cache": cached})
            self.kept = event.subject if event.subject in self.costly else self.kept
        super().__call__(event)


def publish_model(
    model: Model, run: Run, output: Path, force: bool, started: float, passes: Sequence[Mapping[str, Any]] = ()
) -> Outcome:
    """Write a model, finish and check it, record the run, and rename it to its place: all of this, or nothing.

    passes: what each of them took, for the record.
    """
    kind = run.found.kinds.make(run.job.source.kind)
    with staging(output) as folder:
        with told(run, "write", str(output)), disk_errors(folder):
            digests = run.found.kinds.make(model.kind).save(model, folder, run.context)
        converted = time.perf_counter() - started
        written = model.but(location=folder, payload=None)
        finished = finish(written, run, digests)
        run, model = finished.run, model.noticed(*finished.notices)
        finishing = time.perf_counter() - started - converted
        verdict = _checked(written, run, output)
        timings = {
            "conversion_seconds": round(converted, 3),
            "finishing_seconds": round(finishing, 3),
            "check_seconds": round(verdict.seconds, 3),
            "passes": list(passes),
        }
        record(folder, finished, timings, verdict, model.notices)
        outcome = Outcome(
            output=output,
            bytes=folder_bytes(folder),
            source_bytes=kind.size(run.job.source),
            conversion_seconds=converted,
            peak_bytes=peak_memory(),
            check=verdict,
            steps=tuple(step.planned.name for step in run.passes),
            notices=model.notices,
        )
        aside = publish(folder, output, force)
    if aside:
        shutil.rmtree(aside, ignore_errors=True)  # if this is interrupted, the next run removes the rest
    return outcome


@contextmanager
def _told_of_the_end(run: Run, output: str, started: float, observers: Watching) -> Iterator[None]:
    """Tell observers how a run ends, and turn an interruption into a Cancelled error, which says what is kept."""
    try:
        yield
    except BaseException as error:
        run.say("run-failed", run.job.plan.source.reference, error=error)
        if not isinstance(error, KeyboardInterrupt | Cancelled):
            raise
        run.job.cancelled.set()
        cure = error.cure if isinstance(error, Cancelled) else None
        if observers.kept:
            cure = cure or f"run it again: it goes on after {observers.kept}"
        raise Cancelled("stopped; nothing was published", cure=cure) from None
    run.say("published", output, time.perf_counter() - started)


def _refuse_unfit(model: Model, run: Run) -> Model:
    """The finished model, unless it would not run on the target."""
    problems = run.found.kinds.make(model.kind).check(model, run.context.target)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        provider = run.found.providers.find(run.context.target.provider)
        raise Unfit(
            f"the model would not run on '{provider.ref.name}' of {provider.plugin.title}: {problems[0]}{more}",
            where=run.job.plan.chain,
            cure="ask with --plan for another --precision or --provider: it lists what would not run there",
        )
    return model


def _checked(package: Model, run: Run, output: Path) -> Check:
    """The result of the check. Raises NotChecked if the package could not be checked and the user requires a check."""
    planned = run.job.plan.check
    if not planned.run:
        return Check(not_run="no check was asked for")
    verifier = run.found.verifiers.preferred()
    if verifier is None:
        verdict = Check(not_run="no plugin that checks packages is installed; pip install drupe-verification")
    else:
        with told(run, "check", str(output)):
            verdict = verifier.check(package, run.job, run.context.target)
    if planned.required and (why := verdict.not_run or verdict.not_compared):
        raise NotChecked(
            f"the package could not be checked: {why}", cure="leave --require-check out to publish it unchecked"
        )
    return verdict
