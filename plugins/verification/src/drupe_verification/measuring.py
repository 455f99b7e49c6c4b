"""Measuring a package, alone or against a reference, in the installed runtimes."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drupe.api import (
    RECORD,
    Context,
    Evaluator,
    ExecutionProvider,
    InProcess,
    Job,
    Metric,
    Model,
    Observers,
    Plan,
    PlanError,
    PlannedPass,
    Progress,
    Record,
    Registry,
    Request,
    call,
    configure,
    default_provider,
    evaluator_of,
    field,
    new_id,
    provider_of,
    registry,
    replace,
    resolve,
    resolve_package,
    runtime_for,
    target_of,
    usable_threads,
)
from drupe_files import FolderCache, key_of, scratch, shared_folder
from drupe_functions import know
from drupe_verification.accounting import refuse_unread
from drupe_verification.fitting import refuse_other_task
from drupe_verification.switched_adapters import without_switched

Imports = Mapping[str, Mapping[str, Any]]
"""Configurations of passes, by the pass's name."""
TRAINED = "trained"
"""The fact that a pass ensures which trains the weights."""


class MadeBy(Record):
    """What of a package's plan decides what the model computes, so that the reference is made in the same way.

    imports: the configuration of each pass that imports the source. trainings: the passes that train it.
    """

    imports: Imports = field(default_factory=dict)
    trainings: tuple[PlannedPass, ...] = ()

    @classmethod
    def of(cls, plan: Plan, found: Registry) -> MadeBy:
        imports = {each.name: each.config for each in plan.passes if each.stage == "import"}
        return cls(imports, tuple(each for each in plan.passes if _trains(each.name, found)))

    def as_json(self) -> dict[str, Any]:
        return {"imports": self.imports, "trainings": [each.model_dump(mode="json") for each in self.trainings]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> MadeBy:
        return cls(document["imports"], tuple(map(PlannedPass.model_validate, document["trainings"])))

    def alike(self, plan: Plan) -> Plan:
        """A plan of a reference, importing and training the source as the package's plan did.

        What the reference's own recipe decides stays. The result of a training comes from the cache.
        """
        for each in plan.passes:
            if each.stage == "import" and each.name in self.imports:
                plan = plan.configured(each.name, **{**self.imports[each.name], **each.config})
        return plan.model_copy(update={"passes": (*self.trainings, *plan.passes)})


def _trains(name: str, found: Registry) -> bool:
    """Whether a pass trains the weights."""
    return name in found.passes and TRAINED in found.passes.find(name).resolve().ensures.stated


def evaluate(
    package: str,
    against: str | None,
    name: str | None,
    values: Mapping[str, Any],
    provider_name: str | None,
    progress: Progress,
) -> tuple[Metric, ...]:
    """Measure with the named evaluator, or with the one of the package's task."""
    found = registry()
    task = resolve_package(package, found).task
    know(name or "", found)
    evaluator = evaluator_of(name or "", task, found)
    if evaluator is None:
        raise PlanError("the model's task has no evaluator", where=package, cure="name an evaluator")
    refuse_other_task(evaluator, task, found)
    config = configure(f"evaluator '{evaluator.name}'", evaluator.Config, values)
    plan = _recorded_plan(package)
    made_by = MadeBy() if plan is None else MadeBy.of(plan, found)
    if against is None:
        return measure(package, None, evaluator, config, provider_name, progress, made_by=made_by)
    own = plan is not None and Path(plan.source.reference) == Path(against).expanduser().absolute()
    if not own:  # another model is not trained, and has no adapters
        made_by = replace(made_by, trainings=())
    reference = resolve(against, plan.source.options if plan is not None and own else {}, found)
    return measure(package, reference, evaluator, config, provider_name, progress, made_by=made_by)


def measure(
    package: str,
    against: Model | None,
    evaluator: Evaluator,
    config: Any,
    provider_name: str | None,
    progress: Progress | None = None,
    parent: str = "",
    made_by: MadeBy | None = None,
) -> tuple[Metric, ...]:
    """Measure on the named provider, or on the provider that the package was made for.

    parent: the run that this is a part of. made_by: see `reference_for`.
    Raises RuntimeMissing where no installed runtime runs the package.
    """
    found = registry()
    model = resolve_package(package, found)
    provider = provider_of(model, provider_name, found)
    target = target_of(provider, found)
    runtime_for(model, target, provider, found)  # raises its error before a reference is converted
    owner = found.evaluators.find(evaluator.name).plugin
    with scratch() as folder, reference_for(against, model, provider, found, parent, made_by or MadeBy()) as reference:
        context = Context(
            target=target,
            scratch=folder,
            threads=usable_threads(),
            progress=progress or Progress(),
            open=lambda each: runtime_for(each, target, provider, found).open(each, target),
        )
        return call(owner, f"the evaluator '{evaluator.name}'", _metrics, evaluator, model, reference, config, context)


def _metrics(evaluator: Evaluator, *measured: Any) -> tuple[Metric, ...]:
    """What an evaluator gives, with values that are Python's own numbers.

    Raises TypeError where that is not a list of metrics with names and numbers, and ValueError where two have one name,
    or a value is NaN or infinite: no limit refuses a NaN, and JSON has no form for either.
    """
    given = evaluator.evaluate(*measured)
    metrics = tuple(given) if isinstance(given, Iterable) else (given,)
    if strange := [each for each in metrics if not isinstance(each, Metric)]:
        raise TypeError(f"it gave {strange[0]!r}, which is not a Metric")
    for each in metrics:
        if wrong := _wrong_with(each):
            raise TypeError(f"it gave {each!r}, whose {wrong}")
    if twice := [name for name, count in Counter(each.name for each in metrics).items() if count > 1]:
        raise ValueError(f"it gave '{twice[0]}' twice")
    metrics = tuple(replace(each, value=float(each.value)) for each in metrics)
    if unbounded := [each for each in metrics if not math.isfinite(each.value)]:
        raise ValueError(f"it gave {unbounded[0].value} for '{unbounded[0].name}', which is not a finite number")
    return metrics


def _wrong_with(metric: Metric) -> str | None:
    """What is wrong with the fields of a metric; numpy's numbers are as good as Python's."""
    if not isinstance(metric.name, str) or not metric.name:
        return "name is no text"
    if isinstance(metric.value, str) or not hasattr(metric.value, "__float__"):
        return "value is no number"
    if not isinstance(metric.unit, str):
        return "unit is no text"
    if metric.spread is not None and not _is_range(metric.spread):
        return "spread is no pair of finite numbers, the lower one first"
    if metric.better not in ("lower", "higher"):
        return "better is neither 'lower' nor 'higher'"
    return None if _fits_json(metric.detail) else "detail is no mapping of names to what JSON has a form for"


def _fits_json(detail: Any) -> bool:
    try:
        return isinstance(json.loads(json.dumps(detail)), dict)
    except (TypeError, ValueError, RecursionError):
        return False


def _is_range(spread: object) -> bool:
    """Whether this is a pair of finite numbers in order."""
    if not isinstance(spread, tuple | list) or len(spread) != 2:
        return False
    try:
        low, high = map(float, spread)
    except (TypeError, ValueError):
        return False
    return -math.inf < low <= high < math.inf


@contextmanager
def reference_for(
    against: Model | None,
    model: Model,
    provider: ExecutionProvider,
    found: Registry,
    parent: str,
    made_by: MadeBy,
) -> Iterator[Model | None]:
    """The model to compare a package with. A package of Drupe is used directly; any other model is imported in floats.

    made_by: how the package's own plan imported the source, and trained it. The user's choices there decide what the
    model computes, so the reference is made in the same way.
    A graph of another exporter may have nodes that the target does not run, or lack what a comparison needs. Then the
    graph itself is used.
    Raises CheckFailed where the imported reference does not read all that the source stores: see `accounting`.
    """
    if against is None or (found.kinds.make(against.kind).runnable and (against.location / RECORD).is_file()):
        yield against
        return
    against = without_switched(against)
    try:
        maker, precision = float_recipe(provider, found)
        request = Request(str(against.location), precision=precision, verify=False)
        plan = found.planner().compose(request, against, maker, target_of(maker, found))
        plan = made_by.alike(plan)
    except PlanError:
        if against.kind != model.kind:
            raise
        yield against
        return
    key = key_of({"plan": plan.model_dump(mode="json"), "of": against.note(), "at": str(against.location)})
    with _folder_for(key) as folder, FolderCache() as cache:
        made = _MADE.get(folder)
        if made is None:
            job = Job(plan, against, new_id(), folder, parent=parent, emit=Observers(found))
            made = InProcess(cache).run(job)
            if not made_by.trainings:  # trained weights lie in files of their own
                refuse_unread(against, made)
        if shared_folder() is None:
            yield made
            return
        _MADE.clear()
        _MADE[folder] = made
        yield found.kinds.make(made.kind).fork(made)


_MADE: dict[Path, Model] = {}
"""The reference that was made last, by the folder of its files, where comparisons share one."""


@contextmanager
def _folder_for(key: str) -> Iterator[Path]:
    """A folder for the files of a reference; where comparisons share one, it stays with the shared folder."""
    if (shared := shared_folder()) is None:
        with scratch() as folder:
            yield folder
        return
    folder = shared / f"reference-{os.getpid()}-{key}"
    if not folder.is_dir():
        _MADE.pop(folder, None)  # of another shared folder at the same place
        folder.mkdir()
    yield folder


def _recorded_plan(package: str) -> Plan | None:
    """The plan that a package was made with; None where it has no record."""
    try:
        record = json.loads((Path(package) / RECORD).read_text(encoding="utf-8"))
        return Plan.model_validate(record["plan"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def float_recipe(provider: ExecutionProvider, found: Registry) -> tuple[ExecutionProvider, str]:
    """A recipe that quantizes nothing: the provider's own, or that of a provider that the machine offers.

    Without one there is an error, because a package must never be compared with itself.
    """
    for maker in (provider, default_provider(found)):
        for recipe in maker.recipes():
            if recipe.precision == maker.reference_precision and not recipe.quantizes:
                return maker, recipe.precision
    raise PlanError(
        f"neither '{provider.name}' nor another installed provider has a float recipe to compare with",
        cure="pip install drupe-ep-cpu",
    )
