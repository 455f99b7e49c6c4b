"""Who does the main job: a Planner makes a plan, a Runner runs it, a Verifier tries what a Publisher makes of it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from drupe.contracts.context import Progress
from drupe.contracts.provider import ExecutionProvider
from drupe.values.event import Event, Metric
from drupe.values.model import Model, Notice
from drupe.values.plan import Plan, PlannedCheck
from drupe.values.recipe import Request
from drupe.values.record import Record, field
from drupe.values.target import Target

RECORD = "drupe.json"
"""The file of a package that says how it was made."""


class Planner(ABC):
    """Makes plans of requests.

    A complete planner, that does nothing to a model::

        class Leaving(Planner):
            name = "leaving"

            def compose(self, request, source, provider, target):
                there = PlannedSource(reference=request.reference, **source.note())
                return Plan(source=there, target=PlannedTarget(provider=provider.name), passes=())
    """

    name: ClassVar[str]

    @abstractmethod
    def compose(self, request: Request, source: Model, provider: ExecutionProvider, target: Target) -> Plan:
        """The plan for a request and the source that it names.

        Raises DrupeError, before anything has run, for what does not fit together or has no effect.
        """


class Job(Record):
    """A plan on its way, with what a runner needs besides it.

    id: of the run; parent: of the run that it is a part of. scratch: a folder that is removed when the result has been
    written. emit: takes every event. cancelled: set when the user wants to stop.
    """

    plan: Plan
    source: Model
    id: str
    scratch: Path
    parent: str = ""
    emit: Callable[[Event], None] = lambda event: None
    progress: Progress = field(default_factory=Progress)
    cancelled: threading.Event = field(default_factory=threading.Event)


class Runner(ABC):
    """Carries out plans.

    What has to leave the process can: a plan as JSON (`plan.model_dump_json()`, `Plan.model_validate_json`), a model
    as a folder (`keep_model`, `kept_model`), events as the fields of a dataclass, an error as `error.document()`, from
    which `error_from` makes it again, and the wish to stop as one word.
    """

    @abstractmethod
    def run(self, job: Job) -> Model:
        """The model that the plan's passes make of the source.

        Raises what a pass raises, Cancelled where `job.cancelled` was set.
        """


class Check(Record):
    """What came of trying a package. not_run: why it was not tried here, None where it was.

    text: what it did, in the task's words. metrics: how the package compares with its source, on what `settings` say;
    units: those of the metrics that have one. not_compared: why it was not.
    """

    runtime: str = ""
    not_run: str | None = None
    text: str = ""
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    not_compared: str | None = None


class Verifier(ABC):
    """Tries packages and measures them.

    A complete verifier, that believes everything::

        class Trusting(Verifier):
            name = "trusting"

            def plan(self, source, request):
                return PlannedCheck(run=False), ()

            def check(self, package, job, target):
                return Check(not_run="nobody looked")

            def evaluate(self, package, against=None, *, evaluator=None, config={}, provider=None, progress=None):
                return ()
    """

    name: ClassVar[str]

    @abstractmethod
    def plan(self, source: Model, request: Request) -> tuple[PlannedCheck, Collection[str]]:
        """How a package of `source` will be tried, and the names of the options that this depends on.

        Raises UsageError for options that make no sense.
        """

    def refuse(self, source: Model, planned: PlannedCheck) -> None:  # noqa: B027 - most have nothing to say
        """Raise the error of a check that could not be made, before the work and not after it."""

    @abstractmethod
    def check(self, package: Model, job: Job, target: Target) -> Check:
        """Try the package in `package.location`, and compare it with the job's source.

        Raises CheckFailed where it does not open, does not do what its task is, or is not like its source.
        """

    @abstractmethod
    def evaluate(
        self,
        package: str,
        against: str | None = None,
        *,
        evaluator: str | None = None,
        config: Mapping[str, Any] | None = None,
        provider: str | None = None,
        progress: Progress | None = None,
    ) -> tuple[Metric, ...]:
        """Measure a package with the evaluator that is named, else with the one of its task.

        against: what it is compared with. provider: None for the one it was made for. Raises RuntimeMissing where
        nothing here runs the package.
        """


class Outcome(Record):
    """What a run has made. Seconds are wall time; peak_bytes is this process's, None where it is not known.

    notices: what the user should know of the package.
    """

    output: Path
    bytes: int
    source_bytes: int | None
    conversion_seconds: float
    peak_bytes: int | None
    check: Check
    steps: tuple[str, ...]
    notices: tuple[Notice, ...] = ()


class Publisher(ABC):
    """Carries out plans, and makes packages of what comes of them: a package that runs, or nothing.

    A complete publisher, that tries and records nothing::

        class Careless(Publisher):
            name = "careless"

            def carry_out(self, plan, source, output, *, force=False, progress=None, runner=None, started=None):
                with TemporaryDirectory() as folder:
                    job = Job(plan, source, new_id(), Path(folder))
                    model = (runner or InProcess()).run(job)
                    registry().kinds.make(model.kind).save(model, output, ready(job, registry()).context)
                return Outcome(output, folder_bytes(output), None, 0.0, None, Check(not_run="nobody looked"), ())

            def source_of(self, plan):
                return resolve(plan.source.reference, plan.source.options, registry())

            def fixed(self, plan, source):
                return plan
    """

    name: ClassVar[str]

    @abstractmethod
    def carry_out(
        self,
        plan: Plan,
        source: Model,
        output: Path,
        *,
        force: bool = False,
        progress: Progress | None = None,
        runner: Runner | None = None,
        started: float | None = None,
    ) -> Outcome:
        """Run a plan on its source and publish the result: `output` is a package, or it is as it was before.

        That the output can be made is seen to before the work. force: what is there may be replaced. runner: where it
        is run; None for this process. started: when the job was taken on, by `time.perf_counter`.
        Raises DrupeError for what a user can mend; KeyboardInterrupt becomes Cancelled.
        """

    @abstractmethod
    def source_of(self, plan: Plan) -> Model:
        """The source that a plan names, where the plan means here what it meant where it was made.

        Raises PlanError, before the work, for what cannot be repeated.
        """

    @abstractmethod
    def fixed(self, plan: Plan, source: Model) -> Plan:
        """The plan with what makes it repeatable, such as the source's fingerprint."""

    def made_for(self, package: Model) -> str | None:
        """The name of the provider that a package was made for; None where that is not known."""
        return None
