"""Evaluator: measures a model, alone or against a reference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from drupe.contracts.context import Context
from drupe.values.event import Metric
from drupe.values.model import Model


class EvaluatorConfig(BaseModel):
    """An evaluator's configuration: frozen, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Evaluator(ABC):
    """Measures a model.

    A complete evaluator, for text models::

        class Length(Evaluator):
            name = "length"
            summary = "how long the model's text is"

            def evaluate(self, model, reference, config, context):
                text = (model.location / "model.txt").read_text()
                return [Metric("length", len(text), "characters", "lower")]
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Config: ClassVar[type[EvaluatorConfig]] = EvaluatorConfig
    options: ClassVar[Mapping[str, str]] = {}
    """For a key of its configuration, the name of the option that sets it in the closing comparison."""
    verifying: ClassVar[Mapping[str, Any]] = {}
    """Its settings when it compares a finished package with its source: with limits that catch what is broken."""
    metrics: ClassVar[Mapping[str, str]] = {}
    """The names of its metrics, with one line on each; empty where they depend on the model."""
    alone: ClassVar[bool] = False
    """Whether it measures one model only: it is then given no reference."""

    def refuse(self, source: Model, config: Any) -> None:  # noqa: B027 - most have nothing to say
        """Raise DrupeError where a package of `source`, not yet made, could not be measured under `config`."""

    @abstractmethod
    def evaluate(self, model: Model, reference: Model | None, config: Any, context: Context) -> Sequence[Metric]:
        """Measure `model`, a package in `model.location`, on `context.target`.

        `reference` is the source where the metrics compare, None otherwise. One that is not a package itself comes as
        the graph that would be written of it, with lazy weights: its payload is all there is.
        Raises CheckFailed for a model that is beyond a limit of `config`.
        """
