"""Runtime and Session: what opens a model on a target and runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from drupe.errors import RuntimeMissing, UsageError
from drupe.target import installed_version

if TYPE_CHECKING:
    from drupe.model import Model
    from drupe.target import Target


@dataclass(frozen=True)
class Generation:
    """How to generate.

    max_new_tokens: at most this many. temperature: 0 takes the likeliest token. top_p, top_k: what is sampled from
    (top_k 0: all). seed: makes a sampled text repeatable. validate: raise CheckFailed where a logit is not finite.
    Raises UsageError for what none of them can be.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    validate: bool = False

    def __post_init__(self) -> None:
        for name, holds, wanted in (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "at least 0 (0 for all tokens)"),
        ):
            if not holds:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be {wanted}")


@dataclass(frozen=True)
class Timing:
    """How fast the last text came. prompt_seconds: until the first token is there; decode_seconds: for all others."""

    prompt_tokens: int
    new_tokens: int
    prompt_seconds: float
    decode_seconds: float

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens a second."""
        return self.prompt_tokens / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        """New tokens a second, the first one aside."""
        return (self.new_tokens - 1) / self.decode_seconds if self.decode_seconds and self.new_tokens > 1 else 0.0


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; role is "system", "user" or "assistant"."""

    role: str
    content: str


class Session(ABC):
    """An open model. A context manager; closing frees what it holds."""

    timing: Timing | None = None
    """Of the text that `stream` or `generate` gave last."""
    max_length: int | None = None
    """Room for so many tokens, prompt and answer together; None where there is no limit."""
    context_length: int | None = None
    """The most that `max_length` can be: what the model was made for; None where that is not known."""

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> Mapping[str, Any]:
        """Run the graph once: arrays in, arrays out, by name. Raises RuntimeMissing where this runtime cannot."""
        raise RuntimeMissing(f"{type(self).__name__} does not run bare graphs", cure="open it with another runtime")

    def stream(self, prompt: str, generation: Generation | None = None) -> Iterator[str]:
        """Continue `prompt`; yields text as it comes, without the prompt."""
        raise RuntimeMissing(f"{type(self).__name__} does not generate text", cure="open it with another runtime")

    def generate(self, prompt: str, generation: Generation | None = None, **options: Any) -> str:
        """Continue `prompt`; the text without the prompt. options: Generation's own fields, one by one."""
        return "".join(self.stream(prompt, replace(generation or Generation(), **options)))

    def conversation(self, messages: Sequence[Message]) -> str:
        """`messages` as the prompt that the model's chat template makes of them."""
        raise RuntimeMissing(f"{type(self).__name__} knows no chat template", cure="open it with another runtime")

    @abstractmethod
    def close(self) -> None:
        """Free what the session holds."""

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Runtime(ABC):
    """Opens models on targets.

    A complete runtime::

        class Echo(Runtime):
            name = "echo"
            distributions = ("echo-runtime",)

            def refusal(self, model, target):
                return None if model.kind == "text" else f"echo does not run models of kind '{model.kind}'"

            def open(self, model, target, max_length=None):
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
    def open(self, model: Model, target: Target, *, max_length: int | None = None) -> Session:
        """Open the model. max_length: room for this many tokens (prompt and answer); None for the package's own.

        Raises RuntimeMissing where the runtime is not installed, CheckFailed where it refuses the model.
        """
