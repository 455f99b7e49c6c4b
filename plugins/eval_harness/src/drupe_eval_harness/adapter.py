"""PackageLM: a package as lm-eval sees a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from numpy.typing import NDArray

from drupe.api import Context, Model, ModelError, UsageError
from drupe_decoding import (
    Decoder,
    FeedState,
    Generation,
    TextSession,
    context_length,
    text_session,
)
from drupe_eval_harness.settings import LmEvalConfig
from drupe_layerwise import Distribution
from drupe_onnx import folder_of, package_of
from drupe_tokenization import apply_chat_template, templates_in_folder
from drupe_tokenization.tokenizer_file import read_tokenizer

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

FLOAT = 4  # bytes of a logit
SAMPLING = ("temperature", "top_p", "top_k")
"""Keys of lm-eval's generation settings that sessions take by the same names."""

Request = tuple[Any, list[int], list[int]]
"""A key, and the tokens of context and continuation."""


class PackageLM(TemplateLM):  # type: ignore[misc]
    """Computes log-likelihoods with a package's graph, and writes texts with the session of its runtime.

    Texts become tokens as in lm-eval's model `hf`: with the tokenizer's beginning of a text, unless the text begins
    with it. A context manager. Both ways to run the package are opened when they are first needed.
    """

    def __init__(self, model: Model, config: LmEvalConfig, context: Context) -> None:
        super().__init__()
        self._model, self._context = model, context
        self._tokens = read_tokenizer(folder_of(model), "be measured on a text")
        self._special = templates_in_folder(folder_of(model)).tokens
        self._opened = contextlib.ExitStack()
        self._decoder: Decoder | None = None
        self._session: TextSession | None = None
        self._read: list[int] = []
        self._place: FeedState | None = None
        """What the decoder has read of the last context, and the place behind it."""
        self._max_gen_toks = config.max_gen_toks
        self.max_length = min(config.max_length or 1 << 30, context_length(model))

    def __enter__(self) -> PackageLM:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        description = package_of(self._model).decoder
        named = self._named("eos_token")
        if named is None and description and description.eos:
            named = description.eos[0]
        if named is None:
            raise ModelError(
                "the model has no token that ends a text, which lm-eval needs",
                where=self._model.location,
                cure="name one as eos_token in tokenizer_config.json",
            )
        return named

    @property
    def prefix_token_id(self) -> int:
        """The token in front of a text without a context."""
        named = self._named("bos_token")
        return self.eot_token_id if named is None else named

    @property
    def tokenizer_name(self) -> str:
        return folder_of(self._model).as_posix().replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        return templates_in_folder(folder_of(self._model)).text(tools=False) if chat_template else ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return apply_chat_template(
            folder_of(self._model),
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **others: Any) -> list[int]:
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self._text([self.prefix_token_id]))
        tokens: list[int] = self._tokens.encode(string, add_special_tokens=add_special_tokens).ids
        return tokens

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, **others: Any
    ) -> list[tuple[float, bool]]:
        """For each request, the logarithm of the continuation's probability, and whether it is the likeliest one.

        Requests are sorted, so that continuations of one context follow each other and read it once.
        """
        found: dict[int, tuple[float, bool]] = {}
        order = sorted(range(len(requests)), key=lambda at: (requests[at][1], requests[at][2]))
        with self._context.progress.task("log-likelihoods", len(requests), "request") as progress:
            for at in order:
                self._context.stop_if_cancelled()
                key, before, continuation = requests[at]
                found[at] = self._likelihood(before, continuation)
                if key is not None:
                    self.cache_hook.add_partial("loglikelihood", key, found[at])
                progress.advance(1)
        return [found[at] for at in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The logarithm of the probability of each whole text, in windows of the model's context."""
        windows: list[Request] = []
        owners: list[int] = []
        for at, request in enumerate(requests):
            (text,) = request.args
            cut = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, context_len=1)
            own = [(None, *make_disjoint_window(window)) for window in cut]
            windows += own
            owners += [at] * len(own)
        sums = [0.0] * len(requests)
        for at, (logarithm, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            sums[at] += logarithm
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the package writes behind each prompt, up to the first of the texts that end an answer."""
        texts = []
        with self._context.progress.task("writing answers", len(requests), "answer") as progress:
            for request in requests:
                self._context.stop_if_cancelled()
                prompt, settings = request.args
                texts.append(self._written(prompt, normalize_gen_kwargs(settings, self._max_gen_toks)))
                self.cache_hook.add_partial("generate_until", request.args, texts[-1])
                progress.advance(1)
        return texts

    def _likelihood(self, before: list[int], continuation: list[int]) -> tuple[float, bool]:
        inputs = [*before, *continuation][-(self.max_length + 1) : -1]
        scored = continuation[-len(inputs) :]
        logarithm, likeliest = 0.0, True
        for token, logits in zip(scored, self._rows(inputs, len(scored)), strict=True):
            logarithm -= Distribution.of(logits, "the package").surprise(token)
            likeliest = likeliest and int(logits.argmax()) == token
        return logarithm, likeliest

    def _rows(self, tokens: list[int], count: int) -> Iterator[NDArray[Any]]:
        """The logits of the last `count` tokens, one after another. What is before them is read once for all requests
        that begin with it."""
        decoder = self._decoder
        if decoder is None:
            decoder = self._decoder = self._opened.enter_context(Decoder(self._model, "measured", self._context))
        before = tokens[:-count]
        if before != self._read or self._place is None:
            decoder.reset()
            for _ in self._chunks(decoder, before):
                pass
            self._read, self._place = before, decoder.mark()
        decoder.back_to(self._place)
        for rows in self._chunks(decoder, tokens[-count:]):
            yield from rows

    def _chunks(self, decoder: Decoder, tokens: list[int]) -> Iterator[NDArray[Any]]:
        """The logits of tokens, of as many at a time as fit into the budget."""
        size = max(1, self._context.memory_budget // (FLOAT * decoder.vocabulary))
        for start in range(0, len(tokens), size):
            yield decoder.logits(tokens[start : start + size])

    def _written(self, prompt: str, settings: dict[str, Any]) -> str:
        """The text behind a prompt. A prompt that leaves no room for the answer loses its beginning."""
        session = self._session
        if session is None:
            session = self._session = text_session(self._opened.enter_context(self._context.open(self._model)))
        most, ends = settings.pop("max_gen_toks"), [end for end in settings.pop("until") or () if end]
        given = {key: settings.pop(key) for key in SAMPLING if key in settings}
        if not settings.pop("do_sample", False):
            given["temperature"] = 0.0
        if strange := [key for key, value in settings.items() if value not in (None, False)]:
            raise UsageError(
                f"the task wants texts to be written with {', '.join(strange)}, which sessions do not have",
                cure="set generation_kwargs in a copy of the task's file",
            )
        room = self.max_length - most
        if room < 1:
            raise UsageError(
                f"answers of {most} tokens leave no room for a prompt in a context of {self.max_length}",
                where="lm-eval.max_gen_toks",
                cure="a smaller number, here or as max_gen_toks in the task's file",
            )
        tokens = self.tok_encode(prompt)
        text = ""
        for piece in session.stream(
            prompt if len(tokens) <= room else self._text(tokens[-room:]), Generation(max_new_tokens=most, **given)
        ):
            text += piece
            if any(end in text for end in ends):
                break
        for end in ends:
            text = text.partition(end)[0]
        return text

    def _named(self, name: str) -> int | None:
        """The number of a special token."""
        text = self._special.get(name)
        token: int | None = None if text is None else self._tokens.token_to_id(text)
        return token

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokens.decode(list(tokens), skip_special_tokens=False))
