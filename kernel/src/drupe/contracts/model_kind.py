"""ModelKind: what can be done with one kind of model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from drupe.contracts.context import Context
from drupe.errors import PlanError
from drupe.values.model import Estimate, Model
from drupe.values.target import Target


class ModelKind(ABC):
    """How one kind of model is loaded, saved, forked, fingerprinted, divided and put together.

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
    runnable: ClassVar[bool] = False
    """Whether a runtime opens models of this kind as they lie on disk."""

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

    def here(self, model: Model) -> bool:
        """Whether all of the model is on this machine, so that nothing has to be downloaded before a pass works."""
        return True

    def payload_problem(self, model: Model) -> str | None:
        """What is wrong with the payload that a plugin has given to a model ("has a payload that is not a text").

        None where this kind can work with it, and for a model without a payload, which is loaded from its location.
        """
        return None

    def fork(self, model: Model) -> Model:
        """A copy whose payload a pass may change; weights are shared."""
        return model

    def split(self, model: Model) -> Mapping[str, Model]:
        """Models of one part each, by role; a model of one part is its own part."""
        if len(model.parts) == 1:
            return {next(iter(model.parts)): model}
        raise PlanError(f"models of kind '{self.name}' cannot be divided into {', '.join(model.parts)}")

    def join(self, model: Model, parts: Mapping[str, Model]) -> Model:
        """The model whose parts are `parts`; `model` is what they were before."""
        if len(parts) == 1:
            return next(iter(parts.values()))
        raise PlanError(f"models of kind '{self.name}' cannot be put together from {', '.join(parts)}")

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

    def restore(self, model: Model, moved: tuple[Path, Path] | None = None) -> Model:
        """The model that `store` kept in `model.location`.

        moved: the folder that the model's source lay in, and the one in which the same files are known to lie now. It
        may be the same folder; times of change do not count in it.
        """
        return self.load(model)
