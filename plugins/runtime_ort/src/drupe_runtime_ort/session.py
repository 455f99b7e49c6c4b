"""OrtSession: a model that is open in onnxruntime."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import CheckFailed, Generation, Message, Session, Timing, UsageError, unknown
from drupe_onnxruntime import not_finite, refuse_no_room
from drupe_runtime_ort.settings import Settings

if TYPE_CHECKING:
    from drupe_runtime_ort.text import Tokenizer


class OrtSession(Session):
    """Runs a graph by name, and generates text where it is a decoder."""

    def __init__(self, module: Any, session: Any, folder: Path, settings: Settings, max_length: int | None) -> None:
        self._ort = module
        self._session = session
        self._folder = folder
        self._settings = settings
        self.context_length = settings.context_length
        limits = [max_length or settings.max_length, self.context_length]
        self.max_length = min((limit for limit in limits if limit), default=None)

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> Mapping[str, Any]:
        """Run the graph once. outputs: the names to give, None for all. Raises UsageError for wrong names."""
        takes = [value.name for value in self._session.get_inputs()]
        gives = [value.name for value in self._session.get_outputs()]
        for name in inputs:
            if name not in takes:
                raise unknown("input", name, takes)
        if missing := [name for name in takes if name not in inputs]:
            raise UsageError(f"the model wants the input '{missing[0]}' too; it takes {', '.join(takes)}")
        wanted = gives if outputs is None else list(outputs)
        for name in wanted:
            if name not in gives:
                raise unknown("output", name, gives)
        try:
            return dict(zip(wanted, self._session.run(wanted, dict(inputs)), strict=True))
        except Exception as error:  # onnxruntime's exceptions have no class of their own but Exception
            raise CheckFailed(f"onnxruntime cannot run the model: {error}") from error

    def stream(self, prompt: str, generation: Generation | None = None) -> Iterator[str]:
        """Continue `prompt`; text comes as soon as it is whole.

        The prompt is checked here, before the first text is asked for. Raises UsageError for an empty prompt,
        NoRoom for one without room for an answer, ModelError for a model that is no decoder or has no tokenizer.
        """
        from drupe_runtime_ort.decoding import Decoder
        from drupe_runtime_ort.sampling import Sampler

        generation = generation or Generation()
        sampler = Sampler(generation)
        tokens = self._tokenizer.encode(prompt)
        refuse_no_room(tokens, self)
        return self._answer(Decoder(self._ort, self._session, self._settings.head_size), sampler, tokens, generation)

    def _answer(self, decoder: Any, sampler: Any, tokens: list[int], generation: Generation) -> Iterator[str]:
        import numpy

        from drupe_runtime_ort.text import TextStream

        started = time.perf_counter()
        self.timing = None
        stream = TextStream(self._tokenizer, tokens)
        room = generation.max_new_tokens
        if self.max_length is not None:
            room = min(room, self.max_length - len(tokens))
        given, new, first = tokens, 0, started
        while new < room:
            logits = decoder.step(given)
            if generation.validate and not numpy.isfinite(logits).all():
                raise not_finite(decoder.length)
            token = sampler.choose(logits)
            now = time.perf_counter()
            new += 1
            first = now if new == 1 else first
            self.timing = Timing(len(tokens), new, first - started, now - first)
            if token in self._settings.ends:
                break
            if text := stream.add(token):
                yield text
            given = [token]

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        from drupe_runtime_ort.text import Tokenizer

        return Tokenizer(self._folder)

    def conversation(self, messages: Sequence[Message]) -> str:
        """The prompt that the model's chat template makes. Raises ModelError where it has none that works."""
        from drupe_runtime_ort.text import apply_chat_template

        return apply_chat_template(self._folder, messages)

    def close(self) -> None:
        self._session = None
