"""FunctionEvaluator: measures a package with a function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from drupe.api import Context, Evaluator, EvaluatorConfig, Metric, Model, UsageError
from drupe_functions.own_file import OwnFile

WANTED = "a number, a mapping of names to numbers, a drupe.api.Metric, or several of them"


class FunctionEvaluator(Evaluator):
    """Opens the package, and gives the function the session and its settings.

    file: where the function stands. place: the same with its line.
    """

    alone: ClassVar[bool] = True
    function: ClassVar[Callable[..., Any]]
    file: ClassVar[OwnFile]
    place: ClassVar[str]

    def evaluate(
        self, model: Model, reference: Model | None, config: EvaluatorConfig, context: Context
    ) -> Sequence[Metric]:
        settings = {name: getattr(config, name) for name in type(config).model_fields}
        function = type(self).function
        with context.open(model) as session, self.file.errors(f"{function.__name__} fails"), self.file.beside():
            given = function(session, **settings)
        return self._metrics(given, function.__name__)

    def _metrics(self, given: Any, name: str) -> list[Metric]:
        """What the function gave, as metrics. Of a plain number more is better."""
        if isinstance(given, Mapping):
            found = [self._metric(str(key), value) for key, value in given.items()]
        elif isinstance(given, list | tuple):
            found = [self._metric(name, value) for value in given]
        else:
            found = [self._metric(name, given)]
        if not found:
            raise self._wrong(f"{name} gave nothing")
        names = [each.name for each in found]
        if twice := [each for at, each in enumerate(names) if each in names[:at]]:
            raise self._wrong(f"{name} gave '{twice[0]}' twice")
        return found

    def _metric(self, name: str, value: Any) -> Metric:
        if isinstance(value, Metric):
            return value
        if isinstance(value, str) or not hasattr(value, "__float__"):
            raise self._wrong(f"{name} is {value!r}, which is not a number")
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise self._wrong(f"{name} is {value!r}, which is not a number: {error}") from error
        if not math.isfinite(number):
            raise self._wrong(f"{name} is {number}, which is not a finite number")
        return Metric(name, number, "", "higher")

    def _wrong(self, what: str) -> UsageError:
        return UsageError(what, where=self.place, cure=f"let it return {WANTED}")
