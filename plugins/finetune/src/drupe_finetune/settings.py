"""The settings of fine-tuning: method, data, and what goes to transformers' TrainingArguments."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, computed_field

from drupe.api import PassConfig, Record, RuntimeMissing, UsageError
from drupe_files import file_digest
from drupe_text.reference import absolute, local_place

Method = Literal["lora", "qlora", "rslora", "dora", "loha", "lokr", "full"]
Init = Literal["default", "loftq"]
BITS, BLOCK = 4, 64
"""How Drupe's own quantizer holds a base in 4 bits."""
LOFTQ_METHODS = ("lora", "qlora", "rslora")
INSTALL = "pip install 'drupe[finetune]'"
LIBRARIES = ("torch", "transformers", "peft", "accelerate")


def _absolute(value: Any) -> Any:
    """A path that exists as an absolute one, so a plan names the same data in any working folder."""
    return absolute(str(Path(str(value)).expanduser()))


class FinetuneConfig(PassConfig):
    """The settings of `finetune`."""

    data: Annotated[str, BeforeValidator(_absolute)] = Field(
        description="JSON lines, JSON, CSV, parquet or text; a folder with such files or of `datasets`; or a hub id"
    )
    template: str | None = Field(
        None, description="text of a row with its columns: '### Q: {question}\\n### A: {answer}'"
    )
    column: str | None = Field(None, description="the column whose text is taken as it is")
    messages: str | None = Field(None, description="the column of chat messages; the loss is on answers only")
    method: Method = Field("lora", description="what is trained: an adapter of this kind, or all weights")
    init: Init = Field("default", description="how an adapter begins: loftq makes up for the error of a base in 4 bits")
    loftq_iterations: int = Field(4, ge=1, le=100, description="how often loftq quantizes and fits in turn")
    quantizer: Literal["drupe", "bitsandbytes"] | None = Field(
        None, description="what holds a base in 4 bits; by default bitsandbytes where it and a GPU are here"
    )
    rank: int = Field(16, ge=1, description="the rank of an adapter's matrices")
    alpha: float | None = Field(None, gt=0, description="the adapter's scaling; by default twice the rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the adapter's inputs, while it is trained")
    targets: tuple[str, ...] = Field(
        (),
        description="what gets an adapter, by the ends of names; by default all linear modules",
    )
    max_length: int = Field(1024, ge=2, description="tokens of a row; longer rows are cut")
    max_sequences: int = Field(0, ge=0, description="how many sequences are learned from at most; 0: all")
    packing: bool = Field(False, description="join rows into sequences of max_length tokens")
    max_steps: int = Field(0, ge=0, description="how many steps are trained; 0: `epochs` times all rows")
    epochs: float = Field(1.0, gt=0, description="how often all rows are seen, without max_steps")
    batch_size: int = Field(8, ge=1, description="rows of a step")
    learning_rate: float | None = Field(
        None, gt=0, description="by default 2e-4 for an adapter and 2e-5 for all weights"
    )
    evaluated: float = Field(0.0, ge=0, lt=1, description="the share of rows that is held out for evaluation")
    patience: int = Field(0, ge=0, description="evaluations without a better loss after which training ends; 0: none")
    save_every: int = Field(50, ge=1, description="steps between checkpoints, from which a stopped run goes on")
    seed: int = Field(0, ge=0, description="of the order of rows, of new weights, and of dropout")
    training: dict[str, Any] = Field(
        default_factory=dict, description="other keys of transformers' TrainingArguments, by name"
    )
    peft: dict[str, Any] = Field(
        default_factory=dict, description="other keys of peft's configuration of the adapter, by name"
    )

    # The cache's keys hold the digest instead of the data's place.
    @computed_field(json_schema_extra={"stands_for": "data"})  # type: ignore[prop-decorator]
    @property
    def data_fingerprint(self) -> str:
        """The SHA-256 of the data's files; of the name, for a data set of the hub."""
        place = local_place(self.data)
        if place is None:
            return hashlib.sha256(self.data.encode()).hexdigest()
        path = place.path
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        listed = "".join(f"{each.name}\0{file_digest(each)}\0" for each in files)
        return hashlib.sha256(f"{listed}{place.split or ''}".encode()).hexdigest()

    @property
    def in_four_bits(self) -> bool:
        """Whether the base is held in 4 bits while the adapter is trained."""
        return self.method == "qlora" or self.init == "loftq"

    @property
    def adapter_scale(self) -> float:
        """What an adapter's product is multiplied with."""
        return self.scaling / (self.rank**0.5 if self.method == "rslora" else self.rank)

    @property
    def chosen(self) -> dict[str, float]:
        """What the settings that were left open have become."""
        return {"learning_rate": self.rate} | ({"alpha": self.scaling} if self.method != "full" else {})

    @property
    def rate(self) -> float:
        stated: float | None = self.training.get("learning_rate", self.learning_rate)
        return stated if stated is not None else 2e-5 if self.method == "full" else 2e-4

    def steps(self, sequences: int) -> int:
        """How many steps are trained with so many sequences to learn from."""
        together = self.batch_size * int(self.training.get("gradient_accumulation_steps") or 1)
        return self.max_steps or max(1, math.ceil(sequences / together * self.epochs))

    @property
    def scaling(self) -> float:
        return self.alpha or 2.0 * self.rank


class Idle(Record):
    """Settings that have no effect beside certain others. when: whether these others are there."""

    keys: tuple[str, ...]
    when: Callable[[FinetuneConfig], bool]
    reason: str
    cure: str


IDLE = (
    Idle(
        ("rank", "alpha", "dropout", "targets"),
        lambda config: config.method == "full",
        "--method full trains all weights, and makes no adapter",
        "leave it out, or choose another --method",
    ),
    Idle(
        ("loftq_iterations",),
        lambda config: config.init != "loftq",
        "the adapter does not begin with LoftQ",
        "--init loftq",
    ),
    Idle(
        ("quantizer",),
        lambda config: not config.in_four_bits,
        "the base is not held in 4 bits",
        "--method qlora",
    ),
    Idle(
        ("learning_rate",),
        lambda config: "learning_rate" in config.training,
        "--training.learning_rate says it as well",
        "leave one of the two out",
    ),
    Idle(
        ("epochs",),
        lambda config: config.max_steps > 0,
        "--max-steps says how long the training takes",
        "leave one of the two out",
    ),
)


def refuse_idle(config: FinetuneConfig) -> None:
    """Raise UsageError for a setting that has no effect. A plan states all of them, so those that differ count."""
    fields = FinetuneConfig.model_fields
    for idle in IDLE:
        given = [key for key in idle.keys if getattr(config, key) != fields[key].default]
        if given and idle.when(config):
            raise UsageError(f"--{given[0].replace('_', '-')} has no effect: {idle.reason}", cure=idle.cure)


def refuse_missing() -> None:
    """Raise RuntimeMissing where a library is not installed."""
    from importlib.util import find_spec

    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise RuntimeMissing(
            f"fine-tuning needs {' and '.join(missing)}, which drupe does not install by default", cure=INSTALL
        )
