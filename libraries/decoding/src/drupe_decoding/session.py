"""TextSession: an open model that writes text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import ModelError, RuntimeMissing, Session, replace
from drupe_decoding.generation import Generation, Timing, Turn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TextSession(Session):
    """A session of a model whose task is text-generation.

    A runtime's session subclasses it, and keeps `timing` up to date while a text comes.
    """

    timing: Timing | None = None
    """Of the text that `stream` or `generate` gave last."""
    max_length: int | None = None
    """How many tokens there is room for, prompt and answer together; None where there is no limit."""
    context_length: int | None = None
    """The model's context length, which is the largest possible `max_length`; None where it is not known."""
    vocabulary: int | None = None
    """How many tokens the model knows; None where that is not known."""
    folder: Path | None = None
    """The model's folder, where its tokenizer and its adapters are; None for a model that has none."""
    adapter: Path | None = None
    """The file of the adapter that is active; None for the base model."""

    def use_adapter(self, name: str | None) -> None:
        """Switch to an adapter, or with None back to the base model, for the texts that are asked for from now on.

        name: of one of the package, or an .onnx_adapter file that was made for it.
        Raises UsageError for a name that there is not, which lists those there are.
        """
        from drupe_onnx.switching import chosen_adapter

        self.adapter = None if name is None else chosen_adapter(name, self.folder)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters that the model can be switched to."""
        from drupe_onnx.switching import adapters_in

        return () if self.folder is None else tuple(adapters_in(self.folder))

    @abstractmethod
    def stream(self, prompt: str, generation: Generation | None = None) -> Iterator[str]:
        """Continue `prompt`; yields text as it comes, without the prompt.

        The prompt is checked before the first text is asked for. Raises UsageError for an empty prompt, NoRoom for one
        that leaves no room for an answer.
        """

    def generate(self, prompt: str, generation: Generation | None = None, **options: Any) -> str:
        """Continue `prompt`; the text without the prompt. options: fields of Generation, one by one."""
        return "".join(self.stream(prompt, replace(generation or Generation(), **options)))

    def continue_tokens(self, prompts: NDArray[np.int64], new_tokens: int) -> Iterator[NDArray[np.integer[Any]]]:
        """Continue `prompts`, [rows, length], with `new_tokens` likeliest tokens each; yields the next of each row.

        This is for measuring: nothing but `new_tokens` ends a row, and no rule of generation_config.json changes a
        token. A runtime that cannot go on after an end token leaves end tokens out. The prompts are read when the first
        tokens are asked for. Raises RuntimeMissing where the runtime has no such loop.
        """
        raise RuntimeMissing(
            "the model's runtime does not continue rows of tokens, and its speed cannot be measured",
            cure="run it in onnxruntime-genai or onnxruntime",
        )

    @abstractmethod
    def conversation(
        self, messages: Sequence[Turn], tools: Sequence[Mapping[str, Any]] | None = None, **settings: Any
    ) -> str:
        """The prompt that the model's chat template makes of `messages`, as transformers' `apply_chat_template` does.

        tools: the functions that the model may call, each as JSON schema. settings: what else the template reads, such
        as `enable_thinking`; also `documents`, `add_generation_prompt` (by default true) and `continue_final_message`.
        Raises ModelError where the model has no template, or where it refuses the conversation.
        """


def text_session(session: Session) -> TextSession:
    """The session, if it writes text. Raises ModelError for a session of another task."""
    if not isinstance(session, TextSession):
        raise ModelError(
            "the model does not generate text",
            cure="open a model of the task text-generation; drupe inspect MODEL shows the task",
        )
    return session
