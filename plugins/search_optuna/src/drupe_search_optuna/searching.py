"""Searching: from a workflow with several values in places to a package, and the trials that led to it."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import (
    Cancelled,
    CheckFailed,
    DrupeError,
    Outcome,
    Plan,
    Progress,
    Record,
    Request,
    UsageError,
    asdict,
    counted,
    plan_of,
    registry,
    replace,
)
from drupe_files import claimed, disk_errors, refuse_to_replace
from drupe_search_optuna.executing import Executor, executor_for
from drupe_search_optuna.finalists import candidates
from drupe_search_optuna.goals import (
    Objective,
    choose,
    frontier,
    nearest_miss,
    objectives_of,
    refuse_unmeasured_goals,
    unmeasured_goal,
)
from drupe_search_optuna.settings import SearchSettings, as_mapping, settings_from
from drupe_search_optuna.spaces import SEARCH, Parameter, filled, parameters_in
from drupe_search_optuna.study import Proposal, Study
from drupe_search_optuna.telling import frontier_table, told_of, told_of_time, values_of
from drupe_search_optuna.trials import (
    CARRIED_OUT,
    Measuring,
    Task,
    Trial,
    ended,
    failed,
    impossible,
    refuse_stopped,
    remove_packages,
    shared_by_trials,
)
from drupe_timing import disturbance

SUMMARY = "study.json"
REPEATS = 10
"""How often in a row a sampler may propose what was tried."""
_FREE = ("trials", "seconds", "executor", "finalists")
"""Settings that may change when a search goes on."""


def search_in(document: Mapping[str, Any]) -> Search | None:
    """The search that a workflow asks for; None where it has one value everywhere and no key `search`."""
    parameters = parameters_in(document, registry())
    if not parameters and SEARCH not in document:
        return None
    settings = settings_from(document.get(SEARCH))
    if not parameters:
        raise UsageError(
            "there is nothing to search: every option has one value",
            where=SEARCH,
            cure="give an option several values, as in `block_size: [32, 64, 128]`, or leave `search` out",
        )
    _refuse_idle_order(settings)
    if settings.sampler == "grid":
        for each in parameters:
            each.values()  # raises its error for endless values
    return Search(dict(document), parameters, settings)


def _refuse_idle_order(settings: SearchSettings) -> None:
    """Raise UsageError for `pass-by-pass` where it would change nothing."""
    if settings.order == "joint":
        return
    what = "the order 'pass-by-pass' "
    if settings.sampler == "grid":
        what += "has no effect with the sampler 'grid'"
        raise UsageError(what, where="search.order", cure="leave it out, or name another sampler")
    if settings.number_of_trials is None:
        what += "divides a number of trials among the passes, and only a time is given"
        raise UsageError(what, where="search.order", cure="name trials as well, or leave the order out")


class Search(Record):
    """What is to be searched."""

    workflow: Mapping[str, Any]
    parameters: Sequence[Parameter]
    settings: SearchSettings

    @property
    def combinations(self) -> float:
        """How many combinations of values there are; infinity where a range is endless."""
        return math.prod(each.count for each in self.parameters)

    @property
    def most_trials(self) -> int | None:
        """After how many trials it ends, unless time ends it before; None where only time does."""
        grid = self.settings.sampler == "grid"
        wanted = self.settings.trials if grid else self.settings.number_of_trials
        if wanted is None:
            return int(self.combinations) if grid else None
        return int(min(self.combinations, wanted))  # a combination is tried once

    @property
    def first_values(self) -> dict[str, Any]:
        return {each.name: each.examples[0] for each in self.parameters}

    def lines(self) -> list[str]:
        """What is searched, for a person."""
        every = "endless" if math.isinf(self.combinations) else f"{int(self.combinations):,}"
        until = [counted(self.most_trials, "trial")] if self.most_trials else []
        until += [f"{self.settings.seconds:g} s"] if self.settings.seconds else []
        return [
            *(f"searched  {each}" for each in self.parameters),
            f"{every} combinations; {' or '.join(until)} with the sampler '{self.settings.sampler}'",
        ]

    def document(self) -> dict[str, Any]:
        """What is searched, as JSON."""
        return {"parameters": [{"name": each.name, **asdict(each)} for each in self.parameters],
                "settings": as_mapping(self.settings)}  # fmt: skip

    def check(self, request_of: Callable[[dict[str, Any]], Request]) -> None:
        """Raise the error of a workflow that asks for nothing, with one of the values. No model is looked for."""
        refuse_unmeasured_goals(self.settings)
        executor_for(self.settings.executor, print)
        for values in self._alternatives():
            request_of(filled(self.workflow, values, self.parameters))

    def carry_out(
        self,
        request_of: Callable[[dict[str, Any]], Request],
        output: Path,
        *,
        force: bool = False,
        progress: Progress | None = None,
        say: Callable[[str], None] = print,
    ) -> Found:
        """Try values until the search ends, and make the package that is chosen.

        request_of: what a workflow with one value everywhere asks for. The trials lie beside the output, in a folder
        of its name with `.study` behind it. Raises CheckFailed where no trial keeps to the limits.
        """
        refuse_unmeasured_goals(self.settings)
        refuse_to_replace(output, force)  # before any trial; all else when the package is made
        named = Path(os.path.abspath(output))  # noqa: PTH100 - "." and ".." have no name to put `.study` behind
        folder = named.with_name(named.name + ".study")

        def asked(values: Mapping[str, Any]) -> Request:
            return request_of(filled(self.workflow, values, self.parameters))

        if self.settings.evaluators and (busy := disturbance()):
            say(f"note: {busy}: how fast packages are changes with what these programs do")
        for values, error in impossible(asked, self._alternatives()):
            other = [each for each in self.parameters if values[each.name] != self.first_values[each.name]]
            say(f"note: {values_of(values, other or self.parameters)}: no package can be made of it: {error.what}")
        executor = executor_for(self.settings.executor, say)
        with claimed(folder), _made(folder), shared_by_trials(folder):
            remove_packages(folder)
            trying = _Trying(self, Measuring(asked, self.settings, folder), executor, folder, say)
            trials = trying.all()
            objectives = trying.objectives_in_full()
            best = frontier(in_full(trials), objectives)
            if not best:
                raise _nothing_fits(trials, objectives, folder)
            chosen = choose(best, objectives)
            plan, source = plan_of(asked(chosen.values), registry())
            outcome = registry().publisher().carry_out(plan, source, output, force=force, progress=progress)
            found = Found(self, trials, objectives, best, chosen, trying.left_brief(), plan, outcome, folder)
            found.write()
        return found

    def _alternatives(self) -> list[Mapping[str, Any]]:
        """The first values, and each other value that shows whether it can be set, with the first of all others."""
        first = self.first_values
        return [first] + [{**first, each.name: value} for each in self.parameters for value in each.examples[1:]]


class _Running(Record):
    """A trial that has begun."""

    proposal: Proposal
    task: Task


class _Trying:
    """The trials of a search, old and new."""

    def __init__(
        self,
        search: Search,
        measuring: Measuring,
        executor: Executor,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self._search = search
        self._measuring = measuring
        self._executor = executor
        self._study = Study(folder, search.parameters, search.settings, several=bool(search.settings.executor))
        self._say = say
        self._trials: list[Trial] = []
        self._running: dict[int, _Running] = {}
        self._tried: dict[str, Trial | None] = {}
        """By the key of its values each trial that has begun; None where it has not ended."""
        self._began = time.perf_counter()
        self._before = 0
        self.objectives: list[Objective] = []

    def all(self) -> list[Trial]:
        """Make the trials that are missing, measure the best in full, and give all by number.

        Raises Cancelled, which says what is kept.
        """
        try:
            with self._study.writing(), self._executor:
                self._all()
                while finalists := self._finalists():
                    self._measure_in_full(finalists)
        except (KeyboardInterrupt, Cancelled):
            kept = f"run it again: it goes on after {counted(len(self._trials), 'trial')}" if self._trials else None
            raise Cancelled("stopped; nothing was published", cure=kept) from None
        return sorted(self._trials, key=lambda trial: trial.number)

    def _all(self) -> None:
        workflow = {"parameters": [str(each) for each in self._search.parameters], "workflow": self._rest()}
        self._trials = self._study.earlier(workflow)
        self._before = len(self._trials)
        self._tried = {_key(trial.values): trial for trial in self._trials}
        if self._trials:
            self._say(f"going on after {counted(len(self._trials), 'trial')}")
        base = self._base()
        self.objectives = objectives_of(self._search.settings.goals, base)
        lost = self._study.begin(workflow, self.objectives)
        if not self._trials:
            self._end(self._study.take(base.values), base)
        self._make(self._proposals(lost))

    def objectives_in_full(self) -> list[Objective]:
        """The goals for trials that were measured in full: limits refer to the full numbers of the first trial."""
        return objectives_of(self._search.settings.goals, self._first) if in_full([self._first]) else self.objectives

    @property
    def _first(self) -> Trial:
        return min(self._trials, key=lambda trial: trial.number)

    def _candidates(self) -> list[Trial]:
        """The trials that may be on the frontier by what was measured at first; the likeliest choice comes first."""
        now = {trial.number: trial for trial in self._trials}
        first = candidates([trial.first_impression for trial in self._trials], self.objectives)
        return [now[trial.number] for trial in first]

    def left_brief(self) -> list[Trial]:
        """Trials that may be on the frontier, and were measured briefly only."""
        return [trial for trial in self._candidates() if not trial.in_full]

    def _finalists(self) -> list[Trial]:
        """The trials that are to be measured in full next; none where the choice can be made.

        Those that an earlier run has measured in full are measured once more beside new ones, which they are compared
        with. Where none of those that were measured in full keeps to the limits, more of them follow.
        """
        settings, may_be_best = self._search.settings, self._candidates()
        wanted = may_be_best[: settings.finalists]
        if wanted and settings.is_relative and self._first not in wanted:
            wanted = [self._first, *wanted]
        if any(not trial.in_full for trial in wanted):
            return [trial for trial in wanted if not trial.in_full or (trial.worked and trial.brief)]
        if frontier(in_full(self._trials), self.objectives_in_full()):
            return []
        return self.left_brief()[: settings.finalists]

    def _measure_in_full(self, finalists: Sequence[Trial]) -> None:
        numbers = ", ".join(str(trial.number) for trial in finalists)
        self._say(f"measuring in full what may be chosen: {'trial' if len(finalists) == 1 else 'trials'} {numbers}")
        waiting, running = list(self._measuring.full_tasks(finalists)), dict[int, list[Trial]]()
        while waiting or running:
            while waiting and len(running) < self._executor.capacity:
                trials, task = waiting.pop(0)
                running[trials[0].number] = trials
                self._executor.submit(trials[0].number, CARRIED_OUT, task)
            number, result = self._ended()
            trials = running.pop(number)
            if "apart" in result:
                self._say(f"note: they are measured one after the other: {result['apart']}")
            results = result.get("several") or [result] * len(trials)
            measured = zip(trials, results, strict=True)
            self._keep_in_full([self._complete(trial.measured_again(its)) for trial, its in measured])

    def _keep_in_full(self, measured: Sequence[Trial]) -> None:
        now = {trial.number: trial for trial in measured}
        self._trials = [now.get(each.number, each) for each in self._trials]
        for trial in measured:
            self._study.keep_in_full(trial)
            told = told_of(trial, self._search.parameters, self.objectives_in_full())
            self._say(f"trial {trial.number} in full: {told}")

    def _make(self, proposals: Iterator[Proposal]) -> None:
        """Make trials of the proposals: as many beside each other as the executor takes."""
        numbers = self._free_numbers()
        while True:
            while len(self._running) < self._executor.capacity and (proposal := next(proposals, None)):
                self._begin(next(numbers), proposal)
            if not self._running:
                return
            number, result = self._ended()
            begun = self._running.pop(number)
            self._end(begun.proposal, ended(number, begun.proposal.values, begun.task, result))

    def _begin(self, number: int, proposal: Proposal) -> None:
        """Give a trial to the executor. One that no plan can be composed of has ended already."""
        try:
            task = self._measuring.task(proposal.values)
        except DrupeError as error:
            self._end(proposal, ended(number, proposal.values, None, failed(error)))
            return
        self._tried[_key(proposal.values)] = None
        self._running[number] = _Running(proposal, task)
        self._executor.submit(number, CARRIED_OUT, task)

    def _free_numbers(self) -> Iterator[int]:
        """Numbers that no trial has. A trial that was lost has left its number."""
        taken = {trial.number for trial in self._trials}
        return (number for number in itertools.count(1) if number not in taken)

    @property
    def _begun(self) -> int:
        """How many trials have begun."""
        return len(self._trials) + len(self._running)

    def _base(self) -> Trial:
        """The first trial, to which relative limits refer.

        Raises CheckFailed where it fails, and UsageError where the model has changed since it was made.
        """
        first = self._search.first_values
        if self._trials:
            self._measuring.refuse_changed(self._trials[0], first)
            return self._trials[0]
        base = self._alone(first)
        if not base.worked:
            raise CheckFailed(
                f"the first trial, with the first of the values in each place, failed: {base.reason}",
                cure=base.cure or "begin each list with a value that works",
            )
        return base

    def _alone(self, values: Mapping[str, Any]) -> Trial:
        """Make the first trial."""
        try:
            task = self._measuring.task(values)
        except DrupeError as error:
            return ended(1, values, None, failed(error))
        self._executor.submit(1, CARRIED_OUT, task)
        return ended(1, values, task, self._ended()[1])

    def _ended(self) -> tuple[int, Mapping[str, Any]]:
        """The number and the result of the next task that ends. Raises OutputError where the disk took no more."""
        number, result = self._executor.ended()
        refuse_stopped(result)
        return number, result

    def _rest(self) -> dict[str, Any]:
        """The workflow without what may change when a search goes on: how long, and where."""
        settings = {key: value for key, value in as_mapping(self._search.settings).items() if key not in _FREE}
        return {**self._search.workflow, SEARCH: settings}

    def _proposals(self, lost: Sequence[Mapping[str, Any]]) -> Iterator[Proposal]:
        """Trials until the search ends. lost: values of trials that had begun when an earlier run was killed."""
        for values in self._first_values(lost):
            if self._is_over():
                return
            if _key(values) not in self._tried:
                yield self._study.take(values)
        while self._search.settings.sampler != "grid" and not self._is_over() and not self._knows_all():
            yield self._untried()

    def _first_values(self, lost: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Values that no sampler chooses: those that were lost, and all where the search is a grid."""
        yield from lost
        if self._search.settings.sampler == "grid":
            parameters = self._search.parameters
            for values in itertools.product(*(each.values() for each in parameters)):
                yield {each.name: value for each, value in zip(parameters, values, strict=True)}

    def _is_over(self) -> bool:
        search, spent = self._search, time.perf_counter() - self._began
        late = search.settings.seconds is not None and spent > search.settings.seconds
        return late or (search.most_trials is not None and self._begun >= search.most_trials)

    def _knows_all(self) -> bool:
        """Whether every combination was tried."""
        return self._begun >= self._search.combinations

    def _fixed(self) -> dict[str, Any] | None:
        """With the order `pass-by-pass`: the best values so far, for all parameters but those of the current pass."""
        search, done, most = self._search, self._begun, self._search.most_trials
        if search.settings.order == "joint" or most is None:
            return None
        owners = list(dict.fromkeys(_owner(each) for each in search.parameters))
        current = owners[min(done * len(owners) // most, len(owners) - 1)]
        best = frontier(self._trials, self.objectives)
        values = choose(best, self.objectives).values if best else search.first_values
        return {each.name: values[each.name] for each in search.parameters if _owner(each) != current}

    def _untried(self) -> Proposal:
        """The sampler's next values that were not tried; where it goes on repeating itself, others at random.

        The sampler is told again what came of values that it repeats: they are no trials.
        """
        number = self._begun + 1
        for attempt in range(REPEATS):
            proposal = self._study.propose(number, attempt, self._fixed())
            if _key(proposal.values) not in self._tried:
                return proposal
            if known := self._tried[_key(proposal.values)]:
                self._study.tell(proposal, known, self.objectives, known=True)
            else:
                self._study.give_up(proposal)
        chance = random.Random(self._search.settings.seed + number - 1)
        while True:
            values = {each.name: each.drawn(chance) for each in self._search.parameters}
            if _key(values) not in self._tried:
                return self._study.take(values)

    def _end(self, proposal: Proposal, trial: Trial) -> None:
        trial = self._complete(trial)
        self._study.tell(proposal, trial, self.objectives)
        self._trials.append(trial)
        self._tried[_key(trial.values)] = trial
        search, done = self._search, len(self._trials)
        of = f" of {search.most_trials}" if search.most_trials else ""
        left = told_of_time(time.perf_counter() - self._began, done - self._before, search.most_trials, done)
        self._say(f"trial {trial.number}{of}: {told_of(trial, search.parameters, self.objectives)}{left}")

    def _complete(self, trial: Trial) -> Trial:
        """A trial; a failed one where a goal was not measured."""
        if trial.worked and (unmeasured := unmeasured_goal(trial, self.objectives)):
            return replace(trial, metrics={}, main=(), reason=unmeasured)
        return trial


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def in_full(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that were measured in full and work."""
    return [trial for trial in trials if trial.in_full and trial.worked]


def _owner(parameter: Parameter) -> str:
    """The pass that a parameter belongs to, as far as its place tells."""
    return parameter.name if parameter.is_together else ".".join(map(str, parameter.path[:2]))


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make the folder of a study. It is removed where it stays empty: the first trial has failed."""
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _nothing_fits(trials: Sequence[Trial], objectives: Sequence[Objective], folder: Path) -> CheckFailed:
    miss = nearest_miss(trials, objectives)
    if miss is None:
        failed = next(trial.reason for trial in trials if not trial.worked)
        return CheckFailed(f"every trial failed; the first one: {failed}", where=str(folder))
    trial, objective = miss
    value = trial.metrics[objective.metric].value
    return CheckFailed(
        f"no trial keeps to the limits; nearest is trial {trial.number} with {objective.metric} {value:.4g}, where "
        f"{objective.limits} is asked for",
        where=str(folder),
        cure="widen the limits or the values; the trials that were made are kept",
    )


class Found(Record):
    """What a search has found. outcome: of the package that was made with the chosen values.

    frontier: of the trials that were measured in full. left_brief: trials that may belong to it, and were measured
    briefly only.
    """

    search: Search
    trials: Sequence[Trial]
    objectives: Sequence[Objective]
    frontier: Sequence[Trial]
    chosen: Trial
    left_brief: Sequence[Trial]
    plan: Plan
    outcome: Outcome
    folder: Path

    def document(self) -> dict[str, Any]:
        """All of it as JSON; every trial with its plan."""
        return {
            "version": 1,
            **self.search.document(),
            "objectives": [asdict(each) for each in self.objectives],
            "trials": [trial.document() for trial in self.trials],
            "frontier": [trial.number for trial in self.frontier],
            "left_brief": [trial.number for trial in self.left_brief],
            "chosen": self.chosen.number,
            "output": str(self.outcome.output),
        }

    def lines(self) -> list[str]:
        """The frontier as a table, and where the rest lies."""
        failed = sum(not trial.worked for trial in self.trials)
        told = f"{counted(len(self.trials), 'trial')}" + (f", of which {failed} failed" if failed else "")
        full = len(in_full(self.trials))
        among = f" of the {full} that were measured in full" if full < len(self.trials) - failed else ""
        shown = (self.frontier, self.chosen, self.left_brief, self.search.parameters, self.objectives)
        return [
            f"{told}; {len(self.frontier)} that no other one beats{among}:",
            *frontier_table(*shown),
            f"all trials with their plans: {self.folder / SUMMARY}",
        ]

    def write(self) -> None:
        """Write all of it beside the study, and the plan of each trial that is on the frontier, or may be."""
        with disk_errors(self.folder):
            (self.folder / SUMMARY).write_text(json.dumps(self.document(), indent=1) + "\n", encoding="utf-8")
            for left in self.folder.glob("plan-*.json"):
                left.unlink()
            for trial in (*self.frontier, *self.left_brief):
                path = self.folder / f"plan-{trial.number}.json"
                path.write_text(json.dumps(trial.plan, indent=1) + "\n", encoding="utf-8")
