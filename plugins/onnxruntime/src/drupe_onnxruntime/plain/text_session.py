"""OrtTextSession: a decoder that is open in onnxruntime and generates text in a Python loop."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drupe.api import CheckFailed
from drupe_decoding import Generation, Stopwatch, TextSession, Turn, not_finite, refuse_no_room, refuse_without_row
from drupe_onnxruntime.plain.session import OrtSession

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from drupe_onnxruntime.plain.decoder import Decoder
    from drupe_onnxruntime.plain.graphs import Graphs
    from drupe_onnxruntime.plain.model_settings import ModelSettings
    from drupe_onnxruntime.plain.sampling import Sampler
    from drupe_tokenization import Tokenizer


class OrtTextSession(OrtSession, TextSession):
    """Runs the graph of a model of one part by name, and generates text with it."""

    folder: Path

    def __init__(
        self, module: Any, graphs: Graphs, settings: ModelSettings, max_length: int | None, threads: int | None
    ) -> None:
        super().__init__(graphs, threads)
        self._ort = module
        ((self._part, path),) = graphs.files.items()
        self.folder = path.parent
        self._settings = settings.with_metadata(graphs[self._part])
        self._rules = self._settings.rules
        self.context_length = self._settings.context_length
        limits = [max_length or self._settings.max_length, self.context_length]
        self.max_length = min((limit for limit in limits if limit), default=None)
        self._loaded: dict[Path, Any] = {}
        """The adapters that onnxruntime has read, by file."""

    def stream(self, prompt: str, generation: Generation | None = None) -> Iterator[str]:
        """Continue `prompt`, piece by piece; a character of several tokens comes in one piece.

        Raises UsageError for an empty prompt and for one with a token that the model does not have, NoRoom for a prompt
        that leaves no room for an answer, ModelError for a graph that is not a decoder, or a model without a tokenizer.
        """
        from drupe_onnxruntime.plain.sampling import Sampler

        generation = generation or Generation()
        sampler = Sampler(generation)
        tokens = self.encode(prompt)
        refuse_no_room(tokens, self)
        decoder = self._decoder()
        refuse_without_row(tokens, decoder.vocabulary, self._tokenizer.name)
        return self._answer(decoder, sampler, tokens, generation)

    @property
    def vocabulary(self) -> int | None:  # type: ignore[override]  # it takes a look at the graph
        from drupe_onnxruntime.plain.decoder import ports_of

        return ports_of(self.graphs[self._part]).logits.size(2)

    def continue_tokens(self, prompts: NDArray[np.int64], new_tokens: int) -> Iterator[NDArray[np.integer[Any]]]:
        decoder = self._decoder(len(prompts))
        given = prompts
        for _ in range(new_tokens):
            chosen = decoder.step_rows(given).argmax(-1)
            yield chosen
            given = chosen[:, None]

    def _decoder(self, rows: int = 1) -> Decoder:
        """A decoder with the active adapter."""
        from drupe_onnxruntime.plain.decoder import Decoder

        graph, options = self.graphs[self._part], None
        if self.adapter is not None:
            options = self._ort.RunOptions()
            options.add_active_adapter(self._loaded_adapter(self.adapter))
        return Decoder(self._ort, graph, self._settings.cache_sizes, rows, options)

    def _loaded_adapter(self, file: Path) -> Any:
        """An adapter in onnxruntime; its file is read once."""
        if file not in self._loaded:
            adapter = self._ort.LoraAdapter()
            try:
                adapter.Load(str(file))
            except Exception as error:  # onnxruntime's exceptions have no class of their own but Exception
                raise CheckFailed(f"onnxruntime cannot read the adapter: {error}", where=file) from error
            self._loaded[file] = adapter
        return self._loaded[file]

    def encode(self, prompt: str) -> list[int]:
        """The prompt's tokens, with the beginning of sequence if the tokenizer puts one before a text.

        A prompt from a chat template begins with that token already; it is not added twice.
        """
        return self._tokenizer.encode(prompt)

    def _answer(self, decoder: Decoder, sampler: Sampler, tokens: list[int], generation: Generation) -> Iterator[str]:
        import numpy

        from drupe_decoding import LogitRules, StopStrings
        from drupe_tokenization import TextStream

        watch = Stopwatch(len(tokens))
        self.timing = None
        stream = TextStream(self._tokenizer, tokens)
        room = generation.max_new_tokens
        if self.max_length is not None:
            room = min(room, self.max_length - len(tokens))
        rules = LogitRules(self._rules, len(tokens), len(tokens) + room)
        stop = StopStrings(self._rules)
        given, text_tokens = tokens, list(tokens)
        while watch.new_tokens < room:
            logits = decoder.step(given)
            if generation.validate and not numpy.isfinite(logits).all():
                raise not_finite(decoder.length)
            token = sampler.choose(rules.apply(logits, text_tokens))
            self.timing = watch.count()
            if token in self._settings.ends:
                break
            if text := stream.add(token):
                yield text
                if stop.reached(text):
                    break
            given = [token]
            text_tokens.append(token)

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:
        from drupe_tokenization import Tokenizer

        return Tokenizer(self.folder)

    def conversation(
        self, messages: Sequence[Turn], tools: Sequence[Mapping[str, Any]] | None = None, **settings: Any
    ) -> str:
        from drupe_tokenization import apply_chat_template

        return apply_chat_template(self.folder, messages, tools, **settings)
