"""Task: what a model is for, and how a finished package of it is tried."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from drupe.contracts.runtime import Session
from drupe.values.model import Model
from drupe.values.target import Target


class Task(ABC):
    """What a model is for, in Hugging Face's words.

    A complete task, for text models that echo::

        class Echoing(Task):
            name = "echoing"
            summary = "gives back what it is told"
            evaluator = "length"
            offers = {"echo": "gives back a text"}

            def samples(self, model, target, seed=0, sizes=None):
                return {"model": {"text": "hello"}}

            def check(self, session, model):
                answer = session.echo("hello")
                if not answer:
                    raise CheckFailed("nothing is heard")
                return answer
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    evaluator: ClassVar[str | None] = None
    """The evaluator that compares a finished package with its source; None where nothing does."""
    offers: ClassVar[Mapping[str, str]] = {}
    """The methods that a session of such a model has beside `run`, with one line on each."""

    @abstractmethod
    def samples(
        self, model: Model, target: Target, seed: int = 0, sizes: Mapping[str, int] | None = None
    ) -> Mapping[str, Mapping[str, Any]]:
        """Inputs that the model can be run on: for each part, arrays by the name of the input.

        sizes: of axes that vary: "batch" for rows, "length" for tokens of a row, and others as the graph names them;
        the task chooses those that are not given. Raises UsageError for a size that the model has no axis for.
        """

    @abstractmethod
    def check(self, session: Session, model: Model) -> str:
        """Try an open package; returns what came of it in one line, for the summary.

        Raises CheckFailed where it does not do what it is for, or computes what is not finite.
        """
