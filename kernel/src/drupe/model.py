"""Model: an immutable handle on a model; ModelKind: what can be done with one kind of model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from drupe.context import Context
    from drupe.target import Target


@dataclass(frozen=True)
class Model:
    """A model as passes hand it on.

    kind: an open string ("hf", "onnx", ...) that names a registered ModelKind.
    location: the folder or file it lives in.
    facts: what holds of it, as text ("weights" -> "float"); passes require and ensure facts.
    payload: the model in memory, for a kind that is cheap to hold (a graph without its weights).
    """

    kind: str
    location: Path
    facts: Mapping[str, str] = field(default_factory=dict)
    payload: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))

    def but(self, *, facts: Mapping[str, str] | None = None, **changes: Any) -> Model:
        """This model with some fields changed; `facts` are merged into those it has."""
        return replace(self, facts={**self.facts, **(facts or {})}, **changes)


@dataclass(frozen=True)
class StoredWeights:
    """Weights that are stored alike. role: what they are; scheme: how they are stored; blocks: in which layers."""

    role: str
    scheme: str
    blocks: str
    bytes: int


@dataclass(frozen=True)
class Estimate:
    """What a model will take when it is saved.

    output_bytes: size on disk.
    read_bytes: what has to be read for it.
    weights_held_bytes: the most bytes of weights in memory at once.
    work: parameters that go through a computation, for a guess at the time.
    weights: how they are stored, where the kind tells.
    """

    output_bytes: int
    read_bytes: int
    weights_held_bytes: int
    work: int
    weights: Sequence[StoredWeights] = ()


class ModelKind(ABC):
    """How one kind of model is loaded, saved, forked and fingerprinted.

    A complete kind, for models that are one text file::

        class TextKind(ModelKind):
            name = "text"

            def load(self, model):
                return model.but(payload=(model.location / "model.txt").read_text())

            def save(self, model, folder, context):
                (folder / "model.txt").write_text(model.payload)
                return {}

            def fingerprint(self, model, thorough=True):
                return hashlib.sha256(self.load(model).payload.encode()).hexdigest()
    """

    name: ClassVar[str]

    @abstractmethod
    def load(self, model: Model) -> Model:
        """The model with its payload; one that has its payload already comes back as it is."""

    @abstractmethod
    def save(self, model: Model, folder: Path, context: Context) -> Mapping[str, str]:
        """Write the model into `folder`, which exists and is empty; report bytes to `context.progress`.

        Returns the SHA-256 (hexadecimal) of the files whose digest it computed on the way, by name.
        Raises OutputError where the disk refuses, ModelError where the weights do.
        """

    @abstractmethod
    def fingerprint(self, model: Model, thorough: bool = True) -> str:
        """A digest of all that decides what the model computes.

        With `thorough`, of every byte, as cache keys need; without, large weights may be sampled, as records do.
        """

    def fork(self, model: Model) -> Model:
        """A copy whose payload a pass may change; weights are shared."""
        return model

    def size(self, model: Model) -> int | None:
        """Bytes that the model takes where it lies; None where that is not known."""
        return None

    def describe(self, model: Model) -> Mapping[str, Any]:
        """What `drupe inspect` shows by label, from what is cheap to read; what is a number is one, without a unit."""
        return {}

    def check(self, model: Model, target: Target) -> Sequence[str]:
        """What `target` cannot run of this model, one sentence each; empty when all is well."""
        return ()

    def estimate(self, model: Model, context: Context) -> Estimate | None:
        """What saving will take, without reading a weight; None where that is not known."""
        return None

    def store(self, model: Model, folder: Path, context: Context) -> None:
        """Keep in `folder` what `restore` needs; by default the whole model.

        A kind with lazy weights keeps only what a pass has computed, and references to the rest.
        """
        self.save(model, folder, context)

    def restore(self, model: Model) -> Model:
        """The model that `store` kept in `model.location`."""
        return self.load(model)
