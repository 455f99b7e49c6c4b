"""GenaiSession: a package that is open in onnxruntime-genai."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from drupe.api import CheckFailed, ModelError
from drupe_decoding import Generation, Message, Stopwatch, TextSession, not_finite, refuse_no_room
from drupe_onnxruntime.refusals import MAKE_AGAIN


class GenaiSession(TextSession):
    """Generates text with a package; it does not run single parts. timing: updated while an answer comes."""

    parts = ()
    max_length: int

    def __init__(self, module: Any, model: Any, max_length: int, context_length: int, vocab_size: int) -> None:
        self._og = module
        self._model = model
        self._tokenizer = module.Tokenizer(model)
        self._ends = {int(token) for token in self._tokenizer.eos_token_ids}
        self._vocab_size = vocab_size
        self.max_length = max_length
        self.context_length = context_length

    def stream(self, prompt: str, generation: Generation | None = None) -> Iterator[str]:
        """Continue `prompt`, piece by piece. A character of several tokens comes in one piece.

        The prompt is checked at once, before the first piece is requested. Raises UsageError for an empty prompt,
        NoRoom for a prompt that leaves no room for an answer.
        """
        generation = generation or Generation()
        tokens = self.encode(prompt)
        refuse_no_room(tokens, self)
        return self._answer(tokens, generation)

    def encode(self, prompt: str) -> Sequence[int]:
        """The prompt's tokens, with the beginning of sequence if the tokenizer puts one before a text.

        A prompt from a chat template begins with that token already; it is not added twice.
        """
        text = _valid(prompt)
        return with_beginning(self._encode(text, special=False), self._encode(text, special=True))

    def _encode(self, text: str, special: bool) -> list[int]:
        self._tokenizer.update_options(add_special_tokens="true" if special else "false")
        tokens: list[int] = self._tokenizer.encode(text).tolist()
        return tokens

    def _answer(self, tokens: Sequence[int], generation: Generation) -> Iterator[str]:
        import numpy

        watch = Stopwatch(len(tokens))
        self.timing = None
        stream = self._tokenizer.create_stream()
        generator = None
        try:
            generator = self._og.Generator(self._model, self._parameters(len(tokens), generation))
            generator.append_tokens(numpy.asarray(tokens, dtype=numpy.int32))
            while watch.new_tokens < generation.max_new_tokens and not generator.is_done():
                if generation.validate and not numpy.isfinite(generator.get_logits()).all():
                    raise not_finite(len(tokens) + watch.new_tokens)
                generator.generate_next_token()
                token = int(generator.get_next_tokens()[0])
                self.timing = watch.count()
                if token in self._ends:
                    break
                if text := stream.decode(token):
                    yield text
        except RuntimeError as error:
            raise CheckFailed(f"onnxruntime-genai cannot run the package: {error}", cure=MAKE_AGAIN) from error
        finally:
            generator = None  # freed before the model, whose memory it uses; also when the caller stops early

    def _parameters(self, prompt_tokens: int, generation: Generation) -> Any:
        """Search parameters. The cache is allocated for `max_length`, so it is no larger than the text can become."""
        parameters = self._og.GeneratorParams(self._model)
        length = min(self.max_length, prompt_tokens + generation.max_new_tokens)
        options: dict[str, Any] = {"max_length": length, "batch_size": 1, "num_beams": 1}
        if generation.temperature == 0:
            options |= {"do_sample": False}
        else:
            options |= {
                "do_sample": True,
                "temperature": generation.temperature,
                "top_p": generation.top_p,
                "top_k": min(generation.top_k, self._vocab_size),
                "random_seed": generation.seed % 2**31,
            }
        parameters.set_search_options(**options)
        return parameters

    def conversation(self, messages: Sequence[Message]) -> str:
        """The prompt that the package's chat template makes. Raises ModelError where no template works."""
        document = _valid(json.dumps([asdict(message) for message in messages], ensure_ascii=False))
        try:
            prompt: str = self._tokenizer.apply_chat_template(document, add_generation_prompt=True)
        except RuntimeError as error:
            if "Empty chat template" in str(error):
                raise ModelError(
                    "the model has no chat template: it continues text, and was not made for conversations",
                    cure="drupe generate",
                ) from error
            raise ModelError(f"onnxruntime-genai cannot use the model's chat template: {error}") from error
        return prompt

    def close(self) -> None:
        self._tokenizer = None
        self._model = None


def _valid(text: str) -> str:
    """A text with "?" for each character that UTF-8 cannot encode, such as a broken byte that Python has read."""
    return text.encode("utf-8", "replace").decode("utf-8")


def with_beginning(plain: list[int], special: list[int]) -> list[int]:
    """`plain` with the tokens that `special` has before it, unless `plain` begins with them. Nothing is added after it.

    For some models onnxruntime-genai's tokenizer adds an end of sequence that the model's own tokenizer does not add.
    """
    for start in range(len(special) - len(plain) + 1 if plain else 0):
        if special[start : start + len(plain)] == plain:
            return plain if plain[:start] == special[:start] else special[:start] + plain
    return special


def open_session(module: Any, model: Any, max_length: int, context_length: int, vocab_size: int) -> GenaiSession:
    """A session. Raises CheckFailed where onnxruntime-genai cannot read the package's tokenizer."""
    try:
        return GenaiSession(module, model, max_length, context_length, vocab_size)
    except RuntimeError as error:
        raise CheckFailed(f"onnxruntime-genai cannot read the package's tokenizer: {error}", cure=MAKE_AGAIN) from error
