"""Runtime and Session: what opens models on targets, and a model that is open."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any, ClassVar

from drupe.errors import RuntimeMissing
from drupe.values.model import ONLY_PART, Model
from drupe.values.target import Target


class Session(contextlib.AbstractContextManager["Session"], ABC):
    """An open model. A context manager; closing frees what it holds.

    What else it offers is up to the model's task: a session of `text-generation` generates, for instance.
    """

    parts: tuple[str, ...] = (ONLY_PART,)
    """The roles of the parts that can be run."""
    threads: int | None = None
    """How many threads of the processor it computes with; None where the runtime decides or does not tell."""

    def run(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None, part: str = ONLY_PART
    ) -> Mapping[str, Any]:
        """Run one part once, on arrays by name. outputs: the names to give, None for all.

        Raises UsageError for a part, an input or an output that there is not.
        """
        raise RuntimeMissing("the package runs as a whole only", cure="drupe tasks NAME tells what it offers")

    @abstractmethod
    def close(self) -> None:
        """Free what the session holds."""

    def __exit__(self, *error: object) -> None:
        self.close()


class Runtime(ABC):
    """Opens models on targets.

    A complete runtime::

        class Echo(Runtime):
            name = "echo"
            distributions = ("echo-runtime",)

            def refusal(self, model, target):
                return None if model.kind == "text" else f"echo does not run models of kind '{model.kind}'"

            def open(self, model, target, *, max_length=None, threads=0):
                return EchoSession(model)
    """

    name: ClassVar[str]
    distributions: ClassVar[tuple[str, ...]]
    """Distributions any one of which brings the runtime; the first is the one to name to a user."""

    def version(self) -> str | None:
        """The installed version; None where none of `distributions` is installed."""
        return installed_version(self.distributions)

    @abstractmethod
    def refusal(self, model: Model, target: Target) -> str | None:
        """Why this runtime cannot open the model on the target; None when it can. Imports nothing heavy."""

    @abstractmethod
    def open(self, model: Model, target: Target, *, max_length: int | None = None, threads: int = 0) -> Session:
        """Open the model. max_length: room for this many tokens (prompt and answer); None for the package's own.

        threads: how many threads of the processor it computes with; 0 for the package's own number.
        Raises RuntimeMissing where the runtime is not installed, CheckFailed where it refuses the model.
        """


def installed_version(distributions: Iterable[str]) -> str | None:
    """The version of the first of some distributions that is installed; None where none is."""
    for distribution in distributions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution)
    return None
