"""Request, Stage, Step, Recipe, Claim: from what a user asks for to the steps that plugins offer for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.errors import UsageError, unknown
from drupe.values.record import Record, field
from drupe.values.typed import Typed, misfit

MOST_THREADS = 256
STAGES = ("train", "checkpoint", "import", "fuse", "prepare", "quantize", "lower", "package", "compile", "tune")
"""The places in a recipe that plugins fill, in the order in which recipes have them."""
NATIVE = 100
"""The rank of a claimant that was made for the very model; one that takes models of any make has 0."""


class Step(Typed):
    """A pass by name with its configuration.

    options: for a key of the configuration, the name of the option that sets it.
    parts: roles of the model's parts that it is for; empty for all.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[str, ...] = ()


class Stage(Typed):
    """A place in a recipe, filled by the plugin that claims it; its name is one of STAGES.

    numerics: what the provider asks of it: {"bits": 4, "symmetric": True}, {"activations": "float16"}.
    """

    name: str
    numerics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name not in STAGES:
            raise ValueError(unknown("stage", self.name, STAGES).what)


class Recipe(Typed):
    """What a provider does for one precision: stages, and steps of its own (lowering, compiling) between them."""

    name: str
    precision: str
    stages: tuple[Stage | Step, ...]
    summary: str = ""

    @property
    def quantizes(self) -> bool:
        """Whether what it makes is farther from its source than another floating-point type is."""
        return any(isinstance(each, Stage) and each.name == "quantize" for each in self.stages)


class Claim(Typed):
    """The steps that a plugin offers for a stage; none where nothing has to be done.

    name: by which a user can choose it. rank: the highest one wins. reads: the options that decided on the steps,
    beside those that a step reads. because: in words, why there are no steps ("the weights are quantized already"):
    the error says it for an option that therefore has no effect.
    """

    name: str
    steps: tuple[Step, ...]
    rank: int = 0
    reads: tuple[str, ...] = ()
    because: str = ""


class Request(Record):
    """What a user asks for.

    reference: a folder, a file or a hub id. provider: empty for what the machine offers.
    options: values of options that plugins declare, by name; only those that the user gave.
    passes: the passes to run, in this order, instead of a recipe. settings: keys of passes and of the
    evaluator, by the name of either.
    claims: the name of the claim to take, by stage. evaluator: what compares the package with its source, instead of
    the task's own. threads: 0 stands for all that the process may use.
    """

    reference: str
    provider: str = ""
    precision: str = "int4"
    options: Mapping[str, Any] = field(default_factory=dict)
    passes: tuple[Step, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)
    evaluator: str = ""
    threads: int = 0
    verify: bool = True
    require_check: bool = False

    def __post_init__(self) -> None:
        if wrong := misfit(self, Request):
            raise UsageError(f"what is asked for {wrong}")
        self._assign("precision", self.precision.lower())
        if not 0 <= self.threads <= MOST_THREADS:
            raise UsageError(f"threads = {self.threads} is not from 0 to {MOST_THREADS}", cure="--threads 0 takes all")
        if self.require_check and not self.verify:
            raise UsageError("--require-check and --no-verify contradict each other", cure="leave one of them out")
