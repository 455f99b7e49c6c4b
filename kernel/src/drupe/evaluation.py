"""Evaluator: measures a model, alone or against a reference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from drupe.context import Context
    from drupe.model import Model


@dataclass(frozen=True)
class Metric:
    """One measured number with what is needed to read it. better: the direction in which it improves."""

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"]


class EvaluatorConfig(BaseModel):
    """An evaluator's configuration: frozen, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Evaluator(ABC):
    """Measures a model.

    A complete evaluator, for text models::

        class Length(Evaluator):
            name = "length"
            summary = "how long the model's text is"

            def evaluate(self, model, reference, config, context):
                return [Metric("length", len(model.payload), "characters", "lower")]
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Config: ClassVar[type[EvaluatorConfig]] = EvaluatorConfig
    verifying: ClassVar[Mapping[str, Any]] = {}
    """Its settings when it compares a finished package with its source: with limits that catch what is broken."""

    def refuse(self, source: Model, config: Any) -> None:  # noqa: B027 - most have nothing to say
        """Raise DrupeError where a package of `source`, not yet made, could not be measured under `config`."""

    @abstractmethod
    def evaluate(self, model: Model, reference: Model | None, config: Any, context: Context) -> Sequence[Metric]:
        """Measure `model` on `context.target`; `reference` is the source where the metrics compare, None otherwise.

        A reference that is no package itself comes as the graph that would be written of it, with lazy weights: its
        payload is all there is. Raises CheckFailed for a model that is beyond a limit of `config`.
        """
