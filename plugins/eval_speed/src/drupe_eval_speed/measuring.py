"""Measuring packages in turn: each in a process of its own, all cases, A B A B, so that other load disturbs all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import Model, Progress, Record, Registry, UsageError, counted, replace
from drupe_eval_speed.locating import located
from drupe_eval_speed.quantities import QUANTITIES, Quantity
from drupe_eval_speed.settings import SpeedConfig
from drupe_eval_speed.staying import CHILD, end_staying, staying
from drupe_files import folder_bytes, shared_folder
from drupe_timing import BATCH, LENGTH, PROMPT, Case, PackageProcess, cases_of

TEXT = "text"


class Subject(Record):
    """A model to measure. threads: of its session, None where the runtime does not tell. rival: see Located.

    adapter: the name or the file of the one that is active; empty for the base model.
    """

    path: str
    model: Model
    provider: str
    runtime: str
    runtime_version: str
    threads: int | None = None
    rival: bool = False
    adapter: str = ""


class Row(Record):
    """The values of one quantity: those of each package, in the order of the packages and of the rounds.

    A package has no values of what its runtime does not give. case: None for a quantity of the package as a whole.
    """

    quantity: Quantity
    case: Case | None
    values: tuple[tuple[float, ...], ...]


class Measurement(Record):
    """All that was measured. notes: what a reader of the numbers should know.

    new_tokens: of an answer; None where the packages write no text, so that a run is no prompt with an answer.
    """

    subjects: tuple[Subject, ...]
    new_tokens: int | None
    cases: tuple[Case, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def subject_of(path: str, provider: str | None, found: Registry) -> Subject:
    """A package, found and fit to run here. Raises the error of one that is not, before anything is measured."""
    here = located(path, provider, found)
    version = here.runtime.version() or ""
    return Subject(path, here.model, here.provider, here.runtime.name, version, rival=here.rival)


def with_adapters(subject: Subject, adapters: Sequence[str]) -> Iterator[Subject]:
    """A package with each of some adapters active, as far as it has them: by a name, or a file that fits."""
    from drupe_onnx.switching import chosen_adapter

    for name in adapters:
        with contextlib.suppress(UsageError):
            chosen_adapter(name, subject.model.location)
            yield replace(subject, adapter=name)


def refuse_unknown_adapters(subjects: Sequence[Subject], adapters: Sequence[str]) -> None:
    """Raise UsageError for an adapter that none of the packages has."""
    from drupe_onnx.switching import chosen_adapter

    for name in adapters:
        if all(each.adapter != name for each in subjects):
            chosen_adapter(name, subjects[0].model.location)


def measure(
    subjects: Sequence[Subject],
    config: SpeedConfig,
    progress: Progress,
    *,
    loads: int = 0,
    stop: Callable[[], None] = lambda: None,
) -> Measurement:
    """Measure packages side by side. loads: how often loading is timed. stop: raises where the user wants to stop.

    The process of a brief measurement in a search stays, and goes on with the next package: what is imported is
    imported once. Then the peak of its memory is not that of the package.
    """
    stays = config.brief and loads == 0 and len(subjects) == 1 and shared_folder() is not None
    with contextlib.ExitStack() as stack:
        run = _Run(subjects, config, stop, fresh=not stays)
        for each in subjects:
            process = staying(each.path, each.provider) if stays else _of_its_own(each)
            run.processes.append(stack.enter_context(process))
        with progress.task("opening", (loads + 1) * len(subjects), "load") as task:
            times = run.load(loads, task)
        described = run.describe()
        cases = run.cases(described)
        rows = [Row(QUANTITIES["load_time"], None, times)] if loads else []
        with progress.task("measuring", len(cases) * config.runs * len(subjects), "run") as task:
            for case in cases:
                rows += run.measure(case, task)
        notes = tuple(dict.fromkeys(run.notes(described)))
        new_tokens = run.new_tokens if described[0]["kind"] == TEXT else None
        return Measurement(tuple(run.subjects), new_tokens, cases, (*run.whole(), *rows), notes)


def _of_its_own(subject: Subject) -> PackageProcess:
    end_staying()
    return PackageProcess(CHILD, subject.path, provider=subject.provider)


class _Run:
    """The processes of one measurement, and what they are asked."""

    def __init__(
        self, subjects: Sequence[Subject], config: SpeedConfig, stop: Callable[[], None], fresh: bool = True
    ) -> None:
        self._fresh = fresh
        self.subjects = list(subjects)
        self.processes: list[PackageProcess] = []
        self._config = config
        self._stop = stop
        self.new_tokens = config.new_tokens or config.usual_answer
        self._vocabulary: int | None = None

    def load(self, loads: int, progress: Progress) -> tuple[tuple[float, ...], ...]:
        """Open all packages `loads` times and once before: milliseconds by package. They are open afterwards.

        The first load is not timed: it imports the runtime, and reads files that the system then has in memory. In it,
        packages come before models of other tools, which get the packages' threads.
        """
        times: list[list[float]] = [[] for _ in self.processes]
        for number in range(loads + 1):
            turn = self._in_turn(number)
            for at, process in turn if number else sorted(turn, key=lambda pair: self.subjects[pair[0]].rival):
                process.ask("close")
                subject = self.subjects[at]
                opened = process.ask(
                    "open", room=self._room(), threads=self._threads_of(subject), adapter=subject.adapter
                )
                times[at] += [opened["milliseconds"]] if number else []
                self.subjects[at] = replace(subject, threads=opened["threads"])
                progress.advance(1)
        return tuple(map(tuple, times))

    def _threads_of(self, subject: Subject) -> int:
        """The threads to open a model with; 0 for its own number. A model of another tool has none of its own."""
        if self._config.threads or not subject.rival:
            return self._config.threads
        return next((each.threads for each in self.subjects if each.threads and not each.rival), 0)

    def describe(self) -> list[dict[str, Any]]:
        """What each package is. Raises UsageError for packages that cannot be measured in the same way."""
        described = [process.ask("describe") for process in self.processes]
        for subject, each in zip(self.subjects, described, strict=True):
            if each["kind"] != described[0]["kind"]:
                first = self.subjects[0]
                raise UsageError(
                    f"{first.path} and {subject.path} are of different tasks ({first.model.task} and "
                    f"{subject.model.task}), and what is measured of them differs",
                    cure="measure packages of one task at a time",
                )
        # All read the same prompts, so these have tokens that all of them know.
        self._vocabulary = min((each["vocabulary"] for each in described if each["vocabulary"]), default=None)
        return described

    def cases(self, described: Sequence[Mapping[str, Any]]) -> tuple[Case, ...]:
        """The cases, with the packages' default sizes where the user names none. Raises UsageError for one too long."""
        config, sizes = self._config, described[0]["sizes"]
        lengths, batches = (
            asked if asked is not None else (sizes[name],) if all(name in each["sizes"] for each in described) else None
            for asked, name in ((config.prompt_lengths, LENGTH), (config.batch_sizes, BATCH))
        )
        if described[0]["kind"] == TEXT:
            if config.sizes:
                name = next(iter(config.sizes))
                raise UsageError(
                    f"the model has no axis that varies for the size '{name}'; it has prompt lengths and batch sizes",
                    cure="leave the size out",
                )
            lengths = self._fit([each["room"] for each in described])
        return cases_of(lengths, batches, config.sizes)

    def _fit(self, rooms: Sequence[int | None]) -> tuple[int, ...]:
        """The lengths of prompts. What the user leaves open is made to fit into the rooms for tokens of all packages.

        Raises UsageError for prompts and answers that do not fit.
        """
        lengths = self._config.prompt_lengths
        known = [each for each in rooms if each is not None]
        room = min(known, default=max(lengths or (PROMPT,)) + self._config.usual_answer)
        if self._config.new_tokens is None:
            left = room // 2 if lengths is None else room - max(lengths)
            self.new_tokens = max(2, min(self._config.usual_answer, left))
        if lengths is None:
            lengths = (max(1, min(PROMPT, room - self.new_tokens)),)
        for subject, each in zip(self.subjects, rooms, strict=True):
            _refuse_too_long(subject.path, each, max(lengths), self.new_tokens)
        return lengths

    def measure(self, case: Case, progress: Progress) -> list[Row]:
        """All quantities of one case: the packages in turn, in every second round in the other order."""
        order = {"sizes": case.by_name, "new_tokens": self.new_tokens}
        for process in self.processes:
            process.ask("warm", **order, vocabulary=self._vocabulary, brief=self._config.brief)
        found: list[list[dict[str, float]]] = [[] for _ in self.processes]
        for number in range(self._config.runs):
            for at, process in self._in_turn(number):
                found[at].append(process.ask("run", **order)["values"])
                progress.advance(1)
        names = [name for name in QUANTITIES if any(name in run for runs in found for run in runs)]
        return [
            Row(QUANTITIES[name], case, tuple(tuple(run[name] for run in runs if name in run) for runs in found))
            for name in names
        ]

    def whole(self) -> Iterator[Row]:
        """Size on disk and peak memory, where the system tells it."""
        sizes = tuple((float(bytes_on_disk(subject.model.location)),) for subject in self.subjects)
        yield Row(QUANTITIES["size_on_disk"], None, sizes)
        peaks = [process.ask("memory")["bytes"] for process in self.processes]
        if self._fresh and None not in peaks:
            yield Row(QUANTITIES["peak_memory"], None, tuple((float(each),) for each in peaks))

    def notes(self, described: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        yield from (each["energy_missing"] for each in described if each["energy_missing"])

    def _in_turn(self, number: int) -> list[tuple[int, PackageProcess]]:
        """The processes with their places, in the order of a round. Raises where the user wants to stop."""
        self._stop()
        return list(enumerate(self.processes))[:: -1 if number % 2 else 1]

    def _room(self) -> int | None:
        """The tokens that the longest case needs; None where the lengths are the packages' own."""
        lengths = self._config.prompt_lengths
        return None if lengths is None else max(lengths) + self.new_tokens


def _refuse_too_long(package: str, room: int | None, prompt: int, new_tokens: int) -> None:
    """Raise UsageError for a prompt that leaves too little room for the answer."""
    if room is None or prompt + new_tokens <= room:
        return
    left = room - new_tokens
    cure = f"prompts of at most {counted(left, 'token')}" if left > 0 else "fewer new tokens"
    raise UsageError(
        f"a prompt of {counted(prompt, 'token')} and {new_tokens} new ones take {prompt + new_tokens}, but the package "
        f"has room for {room}",
        where=package,
        cure=cure,
    )


def bytes_on_disk(location: Path) -> int:
    """The bytes of a package's folder, or of a graph's file and those that begin with its name (its weights)."""
    if location.is_dir():
        return folder_bytes(location)
    return sum(file.stat().st_size for file in location.parent.iterdir() if file.name.startswith(location.name))
