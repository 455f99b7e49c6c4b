"""The engine: resolve a model, run a checked plan, write, check, record, publish."""

from __future__ import annotations

import datetime
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from drupe.cache import Cache, file_digest, key_of
from drupe.check import Check, check_package, verifying
from drupe.context import Context, Progress, usable_threads
from drupe.errors import Cancelled, ModelError, PlanError, PluginError
from drupe.events import Event
from drupe.model import Estimate, Model
from drupe.opening import open_here, resolve
from drupe.passes import Pass
from drupe.plan import VERIFYING, CheckedStep, Plan, Recipe, Request, check, propose, recipe_for
from drupe.plugins import KERNEL, Registry, canonical, registry
from drupe.publishing import RECORD, disk_errors, folder_bytes, prepare, publish, refuse_overlap, scratch, staging
from drupe.target import ExecutionProvider, Target

RECORD_VERSION = 1


@dataclass(frozen=True)
class Outcome:
    """What `optimize` has done. Seconds are wall time; peak_bytes is this process's, None where it is not known."""

    output: Path
    bytes: int
    source_bytes: int | None
    conversion_seconds: float
    peak_bytes: int | None
    check: Check
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Preview:
    """What `optimize` would do, known without reading a weight."""

    source: Model
    target: Target
    plan: Plan
    steps: tuple[tuple[CheckedStep, str], ...]
    """Each step with the distribution and version that brings it."""
    estimate: Estimate | None
    threads: int
    problems: tuple[str, ...]


@dataclass
class Job:
    """One request on its way: all that its stages share."""

    request: Request
    registry: Registry
    provider: ExecutionProvider
    source: Model
    plan: Plan
    steps: list[CheckedStep]
    context: Context

    @property
    def target(self) -> Target:
        return self.context.target


def optimize(request: Request, progress: Progress | None = None) -> Outcome:
    """Do the whole job: `request.output` is a package that runs, or it is as it was before.

    Raises DrupeError for what a user can mend; KeyboardInterrupt becomes Cancelled.
    """
    started = time.perf_counter()
    prepare(request.output, request.force)
    with prepared(request, progress) as job:
        refuse_overlap(request.output, job.source.location)
        source_bytes = job.registry.kinds.make(job.source.kind).size(job.source)
        _observe(job.registry, Event("run-started", request.reference))
        try:
            with staging(request.output) as folder:
                if any(step.runner.costly for step in job.steps):
                    _previewed(job)  # what a later step refuses is told before the work of an earlier one
                model = _refuse_unfit(run_steps(job), job)
                digests = _write(model, folder, job)
                converted = time.perf_counter() - started
                staged = Model(model.kind, folder, model.facts)
                verdict = _check(staged, job)
                timings = {"conversion_seconds": round(converted, 3), "check_seconds": round(verdict.seconds, 3)}
                _record(folder, job, digests, timings, verdict)
                outcome = Outcome(
                    output=request.output,
                    bytes=folder_bytes(folder),
                    source_bytes=source_bytes,
                    conversion_seconds=converted,
                    peak_bytes=peak_memory(),
                    check=verdict,
                    steps=tuple(step.runner.name for step in job.steps),
                )
                aside = publish(folder, request.output, request.force)
        except BaseException as error:
            _observe(job.registry, Event("run-failed", request.reference, details={"error": error}))
            if not isinstance(error, KeyboardInterrupt | Cancelled):
                raise
            job.context.cancelled.set()
            raise Cancelled("stopped; nothing was published") from None
        if aside:
            shutil.rmtree(aside, ignore_errors=True)  # what an interruption leaves of it, the next run removes
        _observe(job.registry, Event("published", str(request.output), time.perf_counter() - started))
    return outcome


def preview(request: Request) -> Preview:
    """Check the plan, and tell what the output will take, as far as no costly pass decides on that."""
    with prepared(request) as job:
        model = _previewed(job)
        kind = job.registry.kinds.make(model.kind)
        return Preview(
            source=job.source,
            target=job.target,
            plan=job.plan,
            steps=tuple((step, _brought_by(step, job.registry)) for step in job.steps),
            estimate=kind.estimate(model, job.context),
            threads=job.context.threads,
            problems=tuple(kind.check(model, job.target)),
        )


@contextmanager
def prepared(request: Request, progress: Progress | None = None) -> Iterator[Job]:
    """Find model and target, make and check the plan; hold a scratch folder meanwhile."""
    found = registry()
    provider = found.provider(request.provider)
    plan = propose(request, _amended(recipe_for(request, provider), request, found))
    source = resolve(request.reference, request.model_options)
    for plugin, amended in found.ask("drupe_amend_plan", plan=plan, request=request):
        if not isinstance(amended, Plan):
            raise PluginError(f"{plugin.distribution} amended the plan with {amended!r}, which is not a plan")
        plan = amended
    steps = check(plan, source, found)
    with scratch() as folder:
        target = provider.target()
        context = Context(
            target=target,
            scratch=folder,
            threads=request.threads or usable_threads(),
            progress=progress or Progress(),
            open=lambda model: open_here(model, target, provider, found),
        )
        job = Job(request, found, provider, source, plan, steps, context)
        if any(name in request.options for name in VERIFYING):
            found.evaluators.make(provider.verifier).refuse(source, verifying(job))  # before the work, not after
        yield job


def _previewed(job: Job) -> Model:
    """The model after all steps, or those before the first one that does not know what it makes without its work."""
    model = job.source
    for step in job.steps:
        if step.runner.costly and type(step.runner).preview is Pass.preview:
            break
        model = _run_one(step, model, job, step.runner.preview)
    return model


def _amended(recipe: Recipe, request: Request, found: Registry) -> Recipe:
    """The recipe after all plugins; each is given what the one before has made of it."""
    for plugin in found.plugins:
        amended = None if plugin.reason else found.ask_one(plugin, "drupe_amend_recipe", recipe=recipe, request=request)
        if amended is not None and not isinstance(amended, Recipe):
            raise PluginError(f"{plugin.distribution} amended the recipe with {amended!r}, which is not a recipe")
        recipe = amended or recipe
    return recipe


def run_steps(job: Job) -> Model:
    """The source model after all steps of the plan."""
    model = job.source
    cache = Cache()
    for at, step in enumerate(job.steps):
        job.context.stop_if_cancelled()
        started = time.perf_counter()
        _observe(job.registry, Event("pass-started", step.runner.name))
        key = _cache_key(job, at) if step.runner.costly else None
        kept = _find(cache, key, job) if key else None
        model = kept or _run_one(step, model, job, step.runner.run)
        if key and not kept:
            model = _keep(cache, key, model, job)
        name = "pass-cached" if kept else "pass-finished"
        _observe(job.registry, Event(name, step.runner.name, time.perf_counter() - started))
    return model


def _run_one(step: CheckedStep, model: Model, job: Job, run: Callable[..., Model]) -> Model:
    """Let a pass `run` on a model that it may change: a copy of the source, or what the pass before has made."""
    kind = job.registry.kinds.make(model.kind)
    own = Path(tempfile.mkdtemp(dir=job.context.scratch))
    loaded = kind.fork(kind.load(model)) if model is job.source else kind.load(model)
    made = run(loaded, step.config, replace(job.context, scratch=own))
    if made.kind != step.runner.ensures.kind:
        raise PluginError(
            f"the pass '{step.runner.name}' made a model of kind '{made.kind}', which it does not declare"
        )
    return made.but(facts=step.runner.ensures.facts)


def _cache_key(job: Job, at: int) -> str:
    """All that decides what the steps up to `at` make: source, passes, configurations, libraries, target."""
    steps = [
        {
            "pass": step.runner.name,
            "revision": step.runner.revision,
            "config_version": step.config.version,
            "config": {key: _identity(value) for key, value in step.config.model_dump().items()},
            "libraries": {name: metadata.version(name) for name in step.runner.libraries},
        }
        for step in job.steps[: at + 1]
    ]
    kind = job.registry.kinds.make(job.source.kind)
    target = (job.target.provider, job.target.runtime_version, job.target.here)
    return key_of({"source": kind.fingerprint(job.source), "target": target, "steps": steps})


def _identity(value: Any) -> Any:
    """A configured value as the key sees it: a file by its content."""
    return file_digest(value) if isinstance(value, Path) and value.is_file() else value


def _keep(cache: Cache, key: str, model: Model, job: Job) -> Model:
    def fill(folder: Path) -> None:
        (folder / "payload").mkdir()
        job.registry.kinds.make(model.kind).store(model, folder / "payload", job.context)
        (folder / "model.json").write_text(json.dumps({"kind": model.kind, "facts": dict(model.facts)}))

    return _restore(cache.keep(key, fill), job)


def _find(cache: Cache, key: str, job: Job) -> Model | None:
    """What the cache holds, unless what it refers to has moved or changed since."""
    found = cache.find(key)
    try:
        return _restore(found, job) if found else None
    except ModelError:
        cache.drop(key)
        return None


def _restore(folder: Path, job: Job) -> Model:
    note = json.loads((folder / "model.json").read_text())
    return job.registry.kinds.make(note["kind"]).restore(Model(note["kind"], folder / "payload", note["facts"]))


def _refuse_unfit(model: Model, job: Job) -> Model:
    """The finished model, unless the target's table says that it would not run there."""
    problems = job.registry.kinds.make(model.kind).check(model, job.target)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise PlanError(
            f"the model would not run on '{job.target.provider}': {problems[0]}{more}",
            where=f"the plan '{job.plan.recipe}'",
            cure="choose another --precision or --provider",
        )
    return model


def _write(model: Model, folder: Path, job: Job) -> Mapping[str, str]:
    started = time.perf_counter()
    _observe(job.registry, Event("write-started", str(job.request.output)))
    with disk_errors(folder):
        digests = job.registry.kinds.make(model.kind).save(model, folder, job.context)
    _observe(job.registry, Event("write-finished", str(job.request.output), time.perf_counter() - started))
    return digests


def _check(staged: Model, job: Job) -> Check:
    if not job.request.verify:
        return Check(not_run="--no-verify")
    _observe(job.registry, Event("check-started", str(job.request.output)))
    verdict = check_package(staged, job)
    _observe(job.registry, Event("check-finished", str(job.request.output), verdict.seconds, asdict(verdict)))
    return verdict


def _record(folder: Path, job: Job, digests: Mapping[str, str], timings: Mapping[str, float], verdict: Check) -> None:
    """Write what ran into the package."""
    kind = job.registry.kinds.make(job.source.kind)
    files = {each.relative_to(folder).as_posix(): each for each in sorted(folder.rglob("*")) if each.is_file()}
    runs_it = job.registry.runtimes.make(verdict.runtime).version() if verdict.runtime else None
    record = {
        "version": RECORD_VERSION,
        "drupe": metadata.version(KERNEL),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": {
            "reference": job.request.reference,
            "kind": job.source.kind,
            "fingerprint": kind.fingerprint(job.source, thorough=False),
            "facts": dict(job.source.facts),
        },
        "target": {"provider": job.target.provider, "runtime_version": job.target.runtime_version},
        "precision": job.request.precision,
        "threads": job.context.threads,
        "recipe": job.plan.recipe,
        "passes": [
            {"name": step.runner.name, "brought_by": _brought_by(step, job.registry), "revision": step.runner.revision,
             "config": step.config.model_dump(mode="json")}
            for step in job.steps
        ],
        "plugins": {plugin.distribution: plugin.version for plugin in job.registry.plugins if not plugin.reason},
        "libraries": _libraries(job),
        "timings": timings,
        "check": {**asdict(verdict), "runtime_version": runs_it},
        "files": {name: {"bytes": file.stat().st_size, "sha256": digests.get(name) or file_digest(file)}
                  for name, file in files.items()},
    }  # fmt: skip
    with disk_errors(folder):
        (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _libraries(job: Job) -> dict[str, str]:
    """The versions of what the plan's plugins require, and of what that requires in turn; the kernel's aside."""
    from packaging.requirements import Requirement

    left = {job.registry.passes.claim(step.runner.name).plugin.distribution for step in job.steps}
    found: dict[str, str] = {}
    while left:
        texts = [text for owner in left for text in metadata.requires(owner) or () if ";" not in text]
        left = {canonical(Requirement(text).name) for text in texts} - {KERNEL, *found}
        found |= {name: metadata.version(name) for name in left}
    return dict(sorted(found.items()))


def _brought_by(step: CheckedStep, found: Registry) -> str:
    plugin = found.passes.claim(step.runner.name).plugin
    return f"{plugin.distribution} {plugin.version}"


def _observe(found: Registry, event: Event) -> None:
    """Tell every observer; one that fails is reported and the run goes on."""
    for observer in found.manager.hook.drupe_observe.get_hookimpls():
        try:
            observer.function(**dict.fromkeys(observer.argnames, event))
        except Exception as error:
            print(f"the observer of '{observer.plugin_name}' failed on {event.name}: {error!r}", file=sys.stderr)


def peak_memory() -> int | None:
    """The most memory this process has held so far, in bytes; None on a system that does not say.

    Linux's getrusage counts what a parent held before the exec too, so that its process table is asked first.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
