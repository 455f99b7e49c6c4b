"""Timing one run of an open package. This is what a measuring process does between two orders."""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from drupe.api import Model, ModelError, Registry, Session, Target, Task, UsageError
from drupe_decoding import TextSession
from drupe_timing.cases import BATCH, LENGTH, PROMPT, Case
from drupe_timing.energy import Energy

WARM_TOKENS = 8
BRIEF_PROMPT, BRIEF_TOKENS = 16, 3
"""Tokens of the prompt and of the answer that warm a session up for a brief measurement."""
SECONDS, FEWEST, MOST = 0.2, 5, 1000
"""How long a model without text is run again and again for one value, and how often at least and at most."""
SETTLING = 0.02
"""Seconds before a run: threads of a runtime still wait in a busy loop for a moment after they have worked."""
PERCENTILES = (50, 90, 99)
FEW = 100
"""Tokens are below this where the size of the vocabulary is not known."""

Values = dict[str, float]


class TextTimer:
    """Times a session that writes text."""

    kind = "text"

    def __init__(self, session: TextSession, energy: Energy) -> None:
        self._session = session
        self._energy = energy
        self._vocabulary = FEW

    def default_case(self) -> Mapping[str, int]:
        return {LENGTH: PROMPT, BATCH: 1}

    def warm(self, case: Case, new_tokens: int, vocabulary: int | None = None, brief: bool = False) -> None:
        """Begin a run untimed: what the whole of it needs is allocated. vocabulary: prompts have tokens below it.

        brief: only a short prompt is read, which reads all weights from the disk.
        """
        self._vocabulary = vocabulary or self._session.vocabulary or FEW
        if brief:
            case = Case(tuple({**case.by_name, LENGTH: min(case.tokens, BRIEF_PROMPT)}.items()))
        self._run(case, new_tokens, BRIEF_TOKENS if brief else WARM_TOKENS)

    def run(self, case: Case, new_tokens: int) -> Values:
        """One prompt and its answer: milliseconds, and tokens of all rows a second."""
        time.sleep(SETTLING)
        before = self._energy.read()
        times = self._run(case, new_tokens)
        joules = self._energy.joules(before, self._energy.read())
        first, between = times[0], np.diff(times)
        values = {
            "time_to_first_token": first * 1e3,
            **_spread("inter_token", between * 1e3),
            "prefill_rate": case.rows * case.tokens / first,
            "decode_rate": case.rows * len(between) / (times[-1] - first),
        }
        return values | ({} if self._energy.missing else {"energy": joules / (case.rows * new_tokens)})

    def _run(self, case: Case, new_tokens: int, most: int | None = None) -> list[float]:
        """Seconds from the start to each token. most: after how many tokens the run is broken off."""
        prompts = np.random.default_rng(0).integers(0, self._vocabulary, (case.rows, case.tokens))
        times = []
        start = time.perf_counter()
        for _ in itertools.islice(self._session.continue_tokens(prompts, new_tokens), most):
            times.append(time.perf_counter() - start)
        return times


class GraphTimer:
    """Times a session of any other task on the task's sample inputs. A run is a run of all parts."""

    kind = "graph"

    def __init__(self, session: Session, model: Model, target: Target, task: Task, energy: Energy) -> None:
        self._session, self._model, self._target, self._task = session, model, target, task
        self._energy = energy
        self._inputs: Mapping[str, Mapping[str, Any]] = {}
        self._calls = FEWEST

    def default_case(self) -> Mapping[str, int]:
        """The default sizes of those axes that the model has."""
        for sizes in ({LENGTH: PROMPT, BATCH: 1}, {BATCH: 1}, {LENGTH: PROMPT}):
            try:
                self._samples(sizes)
            except UsageError:
                continue
            return sizes
        return {}

    def warm(self, case: Case, new_tokens: int, vocabulary: int | None = None, brief: bool = False) -> None:
        """Make the inputs, run on them untimed, and see how many runs fit into SECONDS."""
        self._inputs = self._samples(case.by_name)
        self._once()
        seconds = min(self._timed(self._once) for _ in range(2))
        self._calls = min(MOST, max(FEWEST, round(SECONDS / max(seconds, 1e-9))))

    def run(self, case: Case, new_tokens: int) -> Values:
        """Several runs: milliseconds of one, and runs, rows and tokens a second."""
        time.sleep(SETTLING)
        before = self._energy.read()
        times = np.array([self._timed(self._once) for _ in range(self._calls)])
        joules = self._energy.joules(before, self._energy.read())
        rate = len(times) / float(times.sum())
        values = _spread("run", times * 1e3)
        values["row_rate" if BATCH in case.by_name else "run_rate"] = rate * case.rows
        if LENGTH in case.by_name:
            values["token_rate"] = rate * case.rows * case.tokens
        return values | ({} if self._energy.missing else {"energy": joules / len(times)})

    def _samples(self, sizes: Mapping[str, int]) -> Mapping[str, Mapping[str, Any]]:
        """Sample inputs. A task that knows nothing of sizes is not asked for any."""
        if not sizes:
            return self._task.samples(self._model, self._target)
        if "sizes" not in inspect.signature(type(self._task).samples).parameters:
            raise UsageError(
                f"the task '{self._task.name}' chooses the sizes of its inputs itself",
                cure="leave prompt lengths, batch sizes and other sizes out",
            )
        return self._task.samples(self._model, self._target, sizes=sizes)

    def _once(self) -> None:
        for part, inputs in self._inputs.items():
            self._session.run(inputs, part=part)

    @staticmethod
    def _timed(work: Callable[[], None]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start


Timer = TextTimer | GraphTimer


def timer_of(session: Session, model: Model, target: Target, found: Registry, energy: Energy) -> Timer:
    """What times a session. Raises ModelError for a model of an unknown task: there are no inputs for it."""
    if isinstance(session, TextSession):
        return TextTimer(session, energy)
    task = model.task
    if task is None or task not in found.tasks:
        known = "is not known" if task is None else f"'{task}' is one that no installed plugin knows"
        raise ModelError(
            f"the task of the model {known}, so there are no inputs to measure it with", where=model.location
        )
    return GraphTimer(session, model, target, found.tasks.make(task), energy)


def _spread(name: str, times: Sequence[float] | Any) -> Values:
    """The mean and the percentiles of times."""
    found = {f"{name}_mean": float(np.mean(times))}
    return found | {f"{name}_p{each}": float(np.percentile(times, each)) for each in PERCENTILES}
