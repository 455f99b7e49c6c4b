"""Trials: making a package with certain values, and measuring it, in this process or another."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import drupe
from drupe.api import (
    RECORD,
    Cancelled,
    DrupeError,
    InProcess,
    Metric,
    Model,
    Outcome,
    OutputError,
    PassCache,
    Plan,
    Record,
    Request,
    UsageError,
    asdict,
    field,
    plan_of,
    registry,
    replace,
)
from drupe_files import disk_errors, key_of, scratch, shared_folder, sharing
from drupe_files.whole_files import whole_file
from drupe_search_optuna.settings import SearchSettings
from drupe_search_optuna.side_by_side import measured_together, measures_together

SHARED = "shared"
"""The folder, in that of the study, for what trials share."""
SESSIONS = ("genai_config.json", "session_options.json")
"""Files of a package that say how it is run, and not what it computes."""
STOPS = "stops"
"""The key of a result that ends the search: where the disk takes no more."""
PACKAGES = "package-"
"""How the names of folders for packages that are being measured begin."""
OWN_UNITS = {"bytes": "bytes", "conversion_seconds": "s"}
"""Metrics that need no evaluator, of which less is better, and their units."""
BRIEF = "brief"
"""The setting of evaluators that can measure briefly."""
CARRIED_OUT = "drupe_search_optuna.trials:carried_out"
"""What an executor calls with a task."""


class Trial(Record):
    """A trial that has ended. values: by the name of the parameter. reason: why it has no metrics.

    number: from 1 on. main: the first metric of each evaluator. plan: as JSON; empty where there is none.
    cure: what would mend the reason, where that is known. in_full: whether all of the metrics are those of full
    measurements. brief: the metrics from before the full measurement, of a trial that was first measured briefly.
    """

    number: int
    values: Mapping[str, Any]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    main: tuple[str, ...] = ()
    reason: str = ""
    cure: str = ""
    seconds: float = 0.0
    plan: Mapping[str, Any] = field(default_factory=dict)
    in_full: bool = True
    brief: Mapping[str, Metric] = field(default_factory=dict)

    @property
    def first_impression(self) -> Trial:
        """The trial as it was measured at first. Only these numbers of all trials may be compared with each other."""
        return replace(self, metrics=self.brief, reason="") if self.brief else self

    @property
    def worked(self) -> bool:
        return not self.reason

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "metrics": _as_documents(self.metrics), "brief": _as_documents(self.brief)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Trial:
        metrics, brief = (_from_documents(document.get(key, {})) for key in ("metrics", "brief"))
        return cls(**{**document, "metrics": metrics, "brief": brief, "main": tuple(document["main"])})

    def measured_again(self, result: Mapping[str, Any]) -> Trial:
        """This trial with what a full measurement has given; see `carried_out`."""
        first = self.first_impression
        seconds = round(self.seconds + float(result.get("seconds", 0.0)), 3)
        kept = replace(first, in_full=True, brief=first.metrics, seconds=seconds)
        if reason := result.get("reason"):
            return replace(kept, metrics={}, main=(), reason=f"measured in full: {reason}", cure=result.get("cure", ""))
        return replace(kept, metrics={**first.metrics, **_from_documents(result["metrics"])})


def _as_documents(metrics: Mapping[str, Metric]) -> dict[str, dict[str, Any]]:
    return {name: asdict(metric) for name, metric in metrics.items()}


def _from_documents(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Metric]:
    return {name: Metric(**{**each, "spread": _pair(each["spread"])}) for name, each in documents.items()}


def _pair(spread: Sequence[float] | None) -> tuple[float, float] | None:
    return None if spread is None else (spread[0], spread[1])


Task = dict[str, Any]
"""What is to be made and measured, as JSON has it: `plan`, `evaluators` by name with their settings, and `folder`, in
which the package may lie meanwhile. Without a folder, it lies with the temporary files of the machine. `again`: the
evaluators that measure a trial once more, in full; then no other ones do. `beside`: the plans of further packages that
are measured in turn with the first; then there is a result for each, under `several`. `shares`: whether trials on one
machine share what is equal in them, in a folder in `folder`."""


class Measuring:
    """What trials are to do. request_of: what a workflow with these values asks for."""

    def __init__(
        self, request_of: Callable[[Mapping[str, Any]], Request], settings: SearchSettings, folder: Path
    ) -> None:
        self._request_of = request_of
        self._settings = settings
        self._folder = folder

    def task(self, values: Mapping[str, Any]) -> Task:
        """What a trial with these values does. Raises the error of values that no plan can be composed of."""
        plan = self._planned(values)
        briefly = {name: {**self._settings.evaluators.get(name, {}), BRIEF: True} for name in self._brief_ones(plan)}
        task = self._task(plan.model_dump(mode="json"), {**self._settings.evaluators, **briefly})
        return {**task, "in_full": not briefly}

    def full_tasks(self, trials: Sequence[Trial]) -> Iterator[tuple[list[Trial], Task]]:
        """What trials do that were measured briefly, and are now measured in full: those of one source side by side."""
        groups: dict[Any, list[Trial]] = {}
        for trial in trials:
            again = self._brief_ones(Plan.model_validate(trial.plan))
            apart = () if any(map(measures_together, again)) else (trial.number,)
            groups.setdefault((trial.plan["source"]["fingerprint"], *again, *apart), []).append(trial)
        for first, *others in groups.values():
            again = self._brief_ones(Plan.model_validate(first.plan))
            task = {**self._task(first.plan, self._settings.evaluators), "again": again}
            yield [first, *others], {**task, "beside": [each.plan for each in others]} if others else task

    def _task(self, plan: Mapping[str, Any], evaluators: Mapping[str, Mapping[str, Any]]) -> Task:
        where, shares = str(self._folder.absolute()), self._settings.shares
        return {"plan": plan, "evaluators": dict(evaluators), "folder": where, "shares": shares}

    def _brief_ones(self, plan: Plan) -> list[str]:
        """The evaluators that measure trials briefly at first: those that can, unless the user says how they do."""
        if not self._settings.is_brief:
            return []
        names = [plan.check.evaluator, *self._settings.evaluators]
        return [
            name
            for name in dict.fromkeys(names)
            if name and BRIEF not in self._settings.evaluators.get(name, {}) and _has_setting(name, BRIEF)
        ]

    def refuse_changed(self, earlier: Trial, values: Mapping[str, Any]) -> None:
        """Raise UsageError where the model is no longer the one that an earlier trial with these values was made of."""
        plan = self._planned(values)
        if earlier.plan and plan.source.fingerprint != earlier.plan["source"]["fingerprint"]:
            raise UsageError(
                "the model has changed since the trials of the study were made",
                where=str(self._folder),
                cure="name another output folder, or remove that one",
            )

    def _planned(self, values: Mapping[str, Any]) -> Plan:
        """The plan for these values, with what makes it repeatable."""
        plan, source = plan_of(self._request_of(values), registry())
        return registry().publisher().fixed(plan, source)


def carried_out(task: Mapping[str, Any], cache: PassCache | None = None) -> dict[str, Any]:
    """Make and measure one package, which is removed afterwards: its plan makes the same one again.

    Gives some fields of a Trial, as JSON. An error that a user can understand becomes a reason, without metrics.
    cache: for what costly passes make; None for the user's own.

    Several packages are measured one after the other where they cannot be measured in turn; `apart` says why.
    """
    if not task.get("beside"):
        return _carried_out_alone(task, cache)
    try:
        return {"several": _in_turn(task, cache)}
    except Cancelled:
        raise
    except (DrupeError, MemoryError) as error:
        why = error.what if isinstance(error, DrupeError) else "there is not enough memory"
        each = [_carried_out_alone({**task, "plan": plan}, cache) for plan in _plans(task)]
        return {"several": each, "apart": why}


def _plans(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The plans of a task's packages. All are of one source, which lies where the first one says."""
    place = task["plan"]["source"]["reference"]
    others = [{**each, "source": {**each["source"], "reference": place}} for each in task["beside"]]
    return [task["plan"], *others]


def _in_turn(task: Mapping[str, Any], cache: PassCache | None) -> list[dict[str, Any]]:
    """Make several packages, and measure them in turn. Raises the error of any of them."""
    started = time.perf_counter()
    plans = [Plan.model_validate(each) for each in _plans(task)]
    source = registry().publisher().source_of(plans[0])
    with _folder(task) as folder, sharing(_shared(task)):
        packages = [Path(folder) / f"package-{number}" for number, _ in enumerate(plans)]
        for plan, package in zip(plans, packages, strict=True):
            _make(plan, source, package, cache)
        runs = [_runs(plan, task["evaluators"]) for plan in plans]
        found: list[dict[str, Metric]] = [{} for _ in plans]
        for name in task["again"]:
            each = [next(run for run in its if run[0] == name) for its in runs]
            if measures_together(name) and not each[0][2]:
                measured = measured_together(name, each[0][1], packages)
            else:
                measured = [_by(plan, package, *run) for plan, package, run in zip(plans, packages, each, strict=True)]
            for metrics, its in zip(found, measured, strict=True):
                metrics |= {metric.name: metric for metric in its}
    seconds = round((time.perf_counter() - started) / len(plans), 3)
    return [{"metrics": _as_documents(metrics), "seconds": seconds} for metrics in found]


def _carried_out_alone(task: Mapping[str, Any], cache: PassCache | None) -> dict[str, Any]:
    started = time.perf_counter()
    found: dict[str, Any] = {}
    try:
        plan = Plan.model_validate(task["plan"])
        source = registry().publisher().source_of(plan)
        with _folder(task) as folder, sharing(_shared(task)):
            metrics, main = _measured(plan, source, task, Path(folder) / "package", cache)
        found = {"metrics": _as_documents(metrics), "main": main}
    except MemoryError:
        found = {"reason": "there is not enough memory for it"}
    except DrupeError as error:
        found = failed(error)
    return {**found, "seconds": round(time.perf_counter() - started, 3)}


def failed(error: DrupeError) -> dict[str, Any]:
    """The result of a task that ends with an error. Raises Cancelled: that is none of a trial.

    Neither is a disk that is full: the search ends, and goes on with this trial when it is run again.
    """
    if isinstance(error, Cancelled):
        raise error
    stops = {STOPS: str(error.where or "")} if isinstance(error, OutputError) else {}
    return {"reason": error.what, "cure": error.cure or "", **stops}


def refuse_stopped(result: Mapping[str, Any]) -> None:
    """Raise OutputError where a task's result says that the disk took no more."""
    for each in (result, *result.get("several", ())):
        if STOPS in each:
            raise OutputError(each["reason"], where=each[STOPS] or None, cure=each["cure"] or None)


def _folder(task: Mapping[str, Any]) -> AbstractContextManager[Path | str]:
    return tempfile.TemporaryDirectory(prefix=PACKAGES, dir=task["folder"]) if "folder" in task else scratch()


def _shared(task: Mapping[str, Any]) -> Path | None:
    """The folder for what trials share; None where they share nothing."""
    if "folder" not in task or not task.get("shares"):
        return None
    shared = Path(task["folder"]) / SHARED
    return shared if shared.is_dir() else None


@contextlib.contextmanager
def shared_by_trials(folder: Path) -> Iterator[None]:
    """Make the folder for what the trials of this search share, empty, and remove it in the end."""
    shutil.rmtree(folder / SHARED, ignore_errors=True)  # of a search that was killed
    with disk_errors(folder):
        (folder / SHARED).mkdir()
    try:
        yield
    finally:
        shutil.rmtree(folder / SHARED, ignore_errors=True)


def remove_packages(folder: Path) -> None:
    """Remove what killed processes have left of packages."""
    for left in folder.glob(f"{PACKAGES}*"):
        shutil.rmtree(left, ignore_errors=True)


def ended(number: int, values: Mapping[str, Any], task: Task | None, result: Mapping[str, Any]) -> Trial:
    """The trial that came of a task. task: None where there was none. result: see `carried_out`."""
    task = task or {"plan": {}}
    known = {"plan": task["plan"], "in_full": task.get("in_full", True) or "reason" in result}
    return Trial.from_document({"number": number, "values": dict(values), "metrics": {}, "main": (), **known, **result})


def _measured(
    plan: Plan, source: Model, task: Mapping[str, Any], package: Path, cache: PassCache | None
) -> tuple[dict[str, Metric], list[str]]:
    """The metrics of a package, and the first one of each evaluator."""
    outcome = _make(plan, source, package, cache)
    own = {"bytes": float(outcome.bytes), "conversion_seconds": outcome.conversion_seconds}
    found = {name: Metric(name, own[name], unit, "lower") for name, unit in OWN_UNITS.items() if "again" not in task}
    main: list[str] = []
    for name, config, compared in _runs(plan, task["evaluators"]):
        if name not in task.get("again", [name]):
            continue
        measured = _by(plan, package, name, config, compared)
        main += [metric.name for metric in measured[:1]]
        found |= {metric.name: metric for metric in measured}
    return found, main


def _make(plan: Plan, source: Model, package: Path, cache: PassCache | None) -> Outcome:
    """Make the package of a trial, without a check."""
    runner = None if cache is None else InProcess(cache)
    unchecked = plan.but(check={"run": False})
    return registry().publisher().carry_out(unchecked, source, package, force=True, runner=runner)


def _by(plan: Plan, package: Path, name: str, config: Mapping[str, Any], compared: bool) -> Sequence[Metric]:
    """What an evaluator gives. compared: whether it compares the package with its source."""
    return _compared(plan, package, name, config) if compared else drupe.evaluate(package, evaluator=name, **config)


def _compared(plan: Plan, package: Path, name: str, config: Mapping[str, Any]) -> Sequence[Metric]:
    """What a comparison with the source gives. Packages that differ in their sessions only compute the same."""
    shared = shared_folder()
    if shared is None:
        return drupe.evaluate(package, plan.source.reference, evaluator=name, **config)
    files = json.loads((package / RECORD).read_text(encoding="utf-8"))["files"]
    computes = {file: found["sha256"] for file, found in files.items() if file not in SESSIONS}
    source = plan.source.model_dump(mode="json")
    known = shared / f"comparison-{key_of({'of': computes, 'with': source, 'by': name, 'config': dict(config)})}.json"
    if not known.is_file():
        measured = drupe.evaluate(package, plan.source.reference, evaluator=name, **config)
        with whole_file(known) as draft:
            draft.write_text(json.dumps([asdict(metric) for metric in measured]), encoding="utf-8")
        return measured
    return [Metric(**{**each, "spread": _pair(each["spread"])}) for each in json.loads(known.read_text("utf-8"))]


def _runs(plan: Plan, evaluators: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any], bool]]:
    """Which evaluators run: name, settings, and whether they compare with the source."""
    check, runs = plan.check, []
    if check.evaluator is not None:
        runs.append((check.evaluator, {**check.config, **evaluators.get(check.evaluator, {})}, True))
    others = {name: config for name, config in evaluators.items() if name != check.evaluator}
    return [*runs, *((name, config, False) for name, config in others.items())]


def _has_setting(evaluator: str, name: str) -> bool:
    found = registry()
    return evaluator in found.evaluators and name in found.evaluators.make(evaluator).Config.model_fields


def impossible(
    request_of: Callable[[Mapping[str, Any]], Request], alternatives: list[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], DrupeError]]:
    """Those of some values for which no plan can be composed, with the reason.

    Raises the first reason where that are all of them. A value that is wrong by itself is an error in any case: no
    trial with it could work.
    """
    found: list[tuple[Mapping[str, Any], DrupeError]] = []
    for values in alternatives:
        request = request_of(values)
        try:
            plan_of(request, registry())
        except DrupeError as error:
            found.append((values, error))
    if found and len(found) == len(alternatives):
        raise found[0][1]
    return found
