"""GenaiSession: a package that is open in onnxruntime-genai."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import CheckFailed
from drupe_decoding import (
    Generation,
    GenerationRules,
    Stopwatch,
    TextSession,
    Turn,
    not_finite,
    refuse_no_room,
    refuse_without_row,
)
from drupe_onnxruntime.refusals import MAKE_AGAIN
from drupe_tokenization import TextStream, Tokenizer, apply_chat_template

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NO_RULES = {"min_length": 0, "no_repeat_ngram_size": 0, "repetition_penalty": 1.0}
"""The search options with which onnxruntime-genai applies no rule of its own."""


class GenaiSession(TextSession):
    """Generates text with a package; it does not run single parts. timing: updated while an answer comes.

    Texts become tokens by `tokenizers`, not by onnxruntime-genai's own tokenizer, which reads some tokenizers
    differently and others not at all.
    """

    parts = ()
    max_length: int
    folder: Path

    def __init__(
        self,
        module: Any,
        model: Any,
        folder: Path,
        max_length: int,
        context_length: int,
        vocab_size: int,
        rules: GenerationRules,
        ends: Sequence[int],
        threads: int | None = None,
    ) -> None:
        """ends: the tokens that end an answer. Raises ModelError where tokenizer.json cannot be read."""
        self._og = module
        self._model = model
        self.folder = folder
        self._tokenizer = Tokenizer(folder)
        self._ends = frozenset(ends)
        self.vocabulary: int = vocab_size
        self.threads = threads
        self._rules = rules
        self._switch: Any = None
        """onnxruntime-genai's own holder of adapters."""
        self._loaded: set[str] = set()
        """The files of those that it holds already, by which it calls them."""
        self.max_length = max_length
        self.context_length = context_length

    def stream(self, prompt: str, generation: Generation | None = None) -> Iterator[str]:
        """Continue `prompt`, piece by piece. A character of several tokens comes in one piece.

        The prompt is checked at once, before the first piece is requested. Raises UsageError for an empty prompt and
        for one with a token that the model does not have, NoRoom for a prompt that leaves no room for an answer.
        """
        generation = generation or Generation()
        tokens = self.encode(prompt)
        refuse_no_room(tokens, self)
        refuse_without_row(tokens, self.vocabulary, self._tokenizer.name)
        return self._answer(tokens, generation)

    def encode(self, prompt: str) -> Sequence[int]:
        """The prompt's tokens, with the beginning of sequence if the tokenizer puts one before a text.

        A prompt from a chat template begins with that token already; it is not added twice.
        """
        return self._tokenizer.encode(prompt)

    def _answer(self, tokens: Sequence[int], generation: Generation) -> Iterator[str]:
        import numpy

        from drupe_decoding import LogitRules, StopStrings

        watch = Stopwatch(len(tokens))
        self.timing = None
        rules, text_tokens = LogitRules(self._rules, len(tokens), self._length(len(tokens), generation)), list(tokens)
        stop = StopStrings(self._rules)
        stream = TextStream(self._tokenizer, tokens)
        generator = None
        try:
            generator = self._generator(self._parameters(len(tokens), generation))
            generator.append_tokens(numpy.asarray(tokens, dtype=numpy.int32))
            while watch.new_tokens < generation.max_new_tokens and not generator.is_done():
                if generation.validate and not numpy.isfinite(generator.get_logits()).all():
                    raise not_finite(len(tokens) + watch.new_tokens)
                if self._rules.beyond_search:
                    logits = generator.get_logits()
                    generator.set_logits(rules.apply(logits.reshape(-1), text_tokens).reshape(logits.shape))
                generator.generate_next_token()
                token = int(generator.get_next_tokens()[0])
                text_tokens.append(token)
                self.timing = watch.count()
                if token in self._ends:
                    break
                if text := stream.add(token):
                    yield text
                    if stop.reached(text):
                        break
        except RuntimeError as error:
            raise CheckFailed(f"onnxruntime-genai cannot run the package: {error}", cure=MAKE_AGAIN) from error
        finally:
            generator = None  # freed before the model, whose memory it uses; also when the caller stops early

    def continue_tokens(self, prompts: NDArray[np.int64], new_tokens: int) -> Iterator[NDArray[np.integer[Any]]]:
        import numpy as np

        rows, length = prompts.shape
        whole = length + new_tokens
        parameters = self._og.GeneratorParams(self._model)
        # Nothing ends a row before it has `min_length` tokens, and a row of `max_length` tokens has ended.
        options = NO_RULES | {"min_length": whole, "max_length": whole, "batch_size": rows, "num_beams": 1}
        parameters.set_search_options(do_sample=False, **options)
        generator = None
        try:
            generator = self._generator(parameters)
            generator.append_tokens(np.ascontiguousarray(prompts, np.int32))
            for _ in range(new_tokens):
                generator.generate_next_token()
                yield np.asarray(generator.get_next_tokens())
        except RuntimeError as error:
            raise CheckFailed(f"onnxruntime-genai cannot run the package: {error}", cure=MAKE_AGAIN) from error
        finally:
            generator = None  # freed before the model, whose memory it uses; also when the caller stops early

    def _generator(self, parameters: Any) -> Any:
        """A generator with the active adapter. An adapter's file is read when it is first active."""
        generator = self._og.Generator(self._model, parameters)
        if self.adapter is not None:
            if self._switch is None:
                self._switch = self._og.Adapters(self._model)
            file = str(self.adapter)
            if file not in self._loaded:
                self._switch.load(file, file)
                self._loaded.add(file)
            generator.set_active_adapter(self._switch, file)
        return generator

    def _parameters(self, prompt_tokens: int, generation: Generation) -> Any:
        """Search parameters. The cache is allocated for `max_length`, so it is no larger than the text can become."""
        parameters = self._og.GeneratorParams(self._model)
        length = self._length(prompt_tokens, generation)
        options: dict[str, Any] = {"max_length": length, "batch_size": 1, "num_beams": 1}
        if self._rules.beyond_search:
            options |= NO_RULES  # `LogitRules` applies all of them, in the order of generate()
        if generation.temperature == 0:
            options |= {"do_sample": False}
        else:
            options |= {
                "do_sample": True,
                "temperature": generation.temperature,
                "top_p": generation.top_p,
                "top_k": min(generation.top_k, self.vocabulary),
                "random_seed": generation.seed % 2**31,
            }
        parameters.set_search_options(**options)
        return parameters

    def _length(self, prompt_tokens: int, generation: Generation) -> int:
        """How long the text may become, prompt and answer together."""
        return min(self.max_length, prompt_tokens + generation.max_new_tokens)

    def conversation(
        self, messages: Sequence[Turn], tools: Sequence[Mapping[str, Any]] | None = None, **settings: Any
    ) -> str:
        return apply_chat_template(self.folder, messages, tools, **settings)

    def close(self) -> None:
        self._switch = None  # before the model, which it belongs to
        self._model = None
