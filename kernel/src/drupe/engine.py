"""The engine: run a plan on a source, pass by pass."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from drupe.checking import ReadyPass, check
from drupe.containment import call, one_line
from drupe.contracts.context import Context, usable_threads
from drupe.contracts.main_job import Job, Runner
from drupe.errors import PluginError
from drupe.opening import open_here, target_of
from drupe.registry import Registry, refuse_unsound, registry
from drupe.values.event import Event
from drupe.values.model import Model
from drupe.values.record import Record, asdict, replace

NOTE, PAYLOAD = "model.json", "payload"


class Run(Record):
    """A job whose passes were found and checked, with the context that they are given."""

    job: Job
    passes: tuple[ReadyPass, ...]
    context: Context
    found: Registry

    @property
    def source(self) -> Model:
        """The job's source with its payload."""
        return self.found.kinds.make(self.job.source.kind).load(self.job.source)

    def say(self, name: str, subject: str, seconds: float | None = None, **details: Any) -> None:
        """Tell every observer of the run."""
        self.job.emit(Event(name, subject, seconds, details, self.job.id, self.job.parent))


class PassCache(Protocol):
    """Keeps what costly passes have made. `drupe_files.FolderCache` is one, in the user's folder for caches."""

    def find(self, run: Run, at: int) -> Model | None:
        """What the run's passes up to number `at` have made before; None where that is not kept."""

    def keep(self, run: Run, at: int, model: Model) -> Model:
        """Keep what they have made now; gives the model as it is kept."""


class InProcess(Runner):
    """Carries out plans in this process. cache: for what costly passes make; without one it is made each time."""

    def __init__(self, cache: PassCache | None = None) -> None:
        self._cache = cache

    def run(self, job: Job) -> Model:
        return run_passes(ready(job, registry()), self._cache)


def new_id() -> str:
    """A name for a run."""
    return uuid.uuid4().hex[:12]


def ready(job: Job, found: Registry) -> Run:
    """Find and check the passes of a job's plan, and the target that it is for."""
    provider = found.provider(job.plan.target.provider)
    target = target_of(provider, found)
    context = Context(
        target=target,
        scratch=job.scratch,
        threads=job.plan.threads or usable_threads(),
        progress=job.progress,
        cancelled=job.cancelled,
        open=lambda model: open_here(model, target, provider, found),
    )
    return Run(job, check(job.plan, job.source, found), context, found)


def run_passes(run: Run, cache: PassCache | None = None) -> Model:
    """The source after all passes of the plan. The source itself, and what each pass was given, stays as it is."""
    model = run.source
    for at, step in enumerate(run.passes):
        run.context.stop_if_cancelled()
        name, started = step.planned.name, time.perf_counter()
        run.say("pass-started", name)
        used = cache if step.runner.costly else None
        kept = used.find(run, at) if used else None
        model = kept or run_pass(step, model, run, step.runner.run)
        if used and not kept:
            model = used.keep(run, at, model)
        run.say("pass-cached" if kept else "pass-finished", name, time.perf_counter() - started)
    return model


def preview(run: Run) -> Model:
    """The model after all passes, or those before the first one that does not know what it makes without its work."""
    model = run.source
    for step in run.passes:
        if not step.is_foreseen:
            break
        model = run_pass(step, model, run, step.runner.preview)
    return model


def refuse_uncheckable(run: Run) -> None:
    """Raise the error of a check that could not be made, before the work and not after it."""
    if run.job.plan.check.run and (verifier := run.found.verifiers.preferred()) is not None:
        verifier.refuse(run.job.source, run.job.plan.check)


def run_pass(step: ReadyPass, model: Model, run: Run, function: Callable[..., Model]) -> Model:
    """Let a pass work on a copy of a model: whole, or on each of its parts that the pass is for."""
    kind = run.found.kinds.make(model.kind)
    forked = kind.fork(kind.load(model))
    call(step.plugin, f"the pass '{step.planned.name}'", step.runner.refuse_whole, forked, step.config, run.context)
    if step.runner.whole or len(forked.parts) == 1:
        return _run_on(step, forked, run, function)
    parts = kind.split(forked)
    made = {
        role: _run_on(step, part, run, function) if not step.planned.parts or role in step.planned.parts else part
        for role, part in parts.items()
    }
    joined = run.found.kinds.make(step.runner.ensures.kind).join(forked, made)
    return joined.noticed(*(notice for part in made.values() for notice in part.notices))


def _run_on(step: ReadyPass, model: Model, run: Run, function: Callable[..., Model]) -> Model:
    """Call a pass, and hold it to what it declares."""
    context = replace(run.context, scratch=Path(tempfile.mkdtemp(dir=run.context.scratch)))
    ensures, who, wrong = step.runner.ensures, f"the pass '{step.planned.name}' of {step.plugin.title}", ""
    made = call(step.plugin, who, function, model, step.config, context)
    if not isinstance(made, Model):
        wrong = f"gave {one_line(made)}, which is not a Model"
    elif made.kind != ensures.kind:
        wrong = f"made a model of kind '{made.kind}', which it does not declare"
    elif not step.runner.whole and made.parts.keys() != model.parts.keys():
        wrong = f"made a model of other parts: {', '.join(made.parts)} instead of {', '.join(model.parts)}"
    if wrong:
        raise PluginError(f"{who} {wrong}", cure=f"report it to the makers of {step.plugin.distribution}")
    refuse_unsound(made, f"the result of {who}", run.found)
    return made.but(facts=ensures.stated, task=made.task or model.task, notices=model.notices).noticed(*made.notices)


def keep_model(model: Model, folder: Path, context: Context) -> None:
    """Put a model into a folder, from which `kept_model` takes it: lazy weights as references to where they lie."""
    (folder / PAYLOAD).mkdir()
    kind = registry().kinds.make(model.kind)
    kind.store(kind.load(model), folder / PAYLOAD, context)
    note = {**model.note(), "notices": [asdict(each) for each in model.notices]}
    (folder / NOTE).write_text(json.dumps(note), encoding="utf-8")


def kept_model(folder: Path, found: Registry, moved: tuple[Path, Path] | None = None) -> Model:
    """The model that `keep_model` has put into a folder. Raises ModelError where what it refers to has changed.

    moved: see `ModelKind.restore`.
    """
    note: Mapping[str, Any] = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    return found.kinds.make(note["kind"]).restore(Model.from_note(note, folder / PAYLOAD), moved)
