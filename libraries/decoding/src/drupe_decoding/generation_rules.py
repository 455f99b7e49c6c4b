"""GenerationRules: what generation_config.json asks of each token that is chosen, as generate() reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from drupe.api import ModelError, Record, field, replace
from drupe_decoding.generation_keys import SEARCH, TAKEN_FROM

FILE = "generation_config.json"
SHOWN = 80
"""Characters of a value in a message."""


class GenerationRules(Record):
    """The rules, with the values that change nothing as defaults. Lengths are in tokens.

    ends: the tokens that end an answer. min_length: of prompt and answer together.
    suppressed: tokens that are never chosen. suppressed_at_first: tokens that are not chosen first.
    biases: what is added to the logit of a sequence's last token where the text ends with the tokens before it; minus
        infinity for a sequence that is not allowed.
    forced_first: the token that follows a prompt of one token. forced_last: tokens for the last place.
    decay: (tokens, factor): from so many new tokens on, the logits of `ends` rise with this factor.
    stop_strings: texts that end an answer.
    """

    ends: tuple[int, ...] = ()
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    min_length: int = 0
    min_new_tokens: int = 0
    suppressed: tuple[int, ...] = ()
    suppressed_at_first: tuple[int, ...] = ()
    biases: tuple[tuple[tuple[int, ...], float], ...] = ()
    forced_first: int | None = None
    forced_last: tuple[int, ...] = ()
    decay: tuple[int, float] | None = None
    stop_strings: tuple[str, ...] = ()
    asked: frozenset[str] = field(default_factory=frozenset)
    """The keys whose rules are not the default."""

    @classmethod
    def read(cls, settings: Mapping[str, Any], ends: Sequence[int] | None = None) -> GenerationRules:
        """The rules in the content of generation_config.json. ends: end tokens instead of those of the file.

        A negative token, length or size asks for nothing, as in generate(). Raises ModelError for a value that
        generate() does not take.
        """
        ends = _ids(settings, "eos_token_id") if ends is None else tuple(ends)
        words = _sequences(settings, "bad_words_ids")
        rules = cls(
            ends,
            repetition_penalty=_penalty(settings, "repetition_penalty"),
            no_repeat_ngram_size=_count(settings, "no_repeat_ngram_size"),
            min_length=_count(settings, "min_length"),
            min_new_tokens=_count(settings, "min_new_tokens"),
            suppressed=_ids(settings, "suppress_tokens"),
            suppressed_at_first=_ids(settings, "begin_suppress_tokens"),
            biases=(
                *_biases(settings, "sequence_bias"),
                *((word, float("-inf")) for word in words if len(word) > 1 or word[0] not in ends),
            ),
            forced_first=next(iter(_ids(settings, "forced_bos_token_id")), None),
            forced_last=_ids(settings, "forced_eos_token_id"),
            decay=_decay(settings, "exponential_decay_length_penalty"),
            stop_strings=_texts(settings, "stop_strings"),
        )
        return replace(rules, asked=frozenset(key for key, holds in ASKED.items() if holds(rules, settings)))

    @property
    def beyond_search(self) -> frozenset[str]:
        """The keys of rules that onnxruntime-genai's own search does not know."""
        return self.asked - SEARCH


ASKED: Mapping[str, Callable[[GenerationRules, Mapping[str, Any]], bool]] = {
    "repetition_penalty": lambda rules, settings: rules.repetition_penalty != 1,
    "no_repeat_ngram_size": lambda rules, settings: rules.no_repeat_ngram_size > 0,
    "min_length": lambda rules, settings: rules.min_length > 0,
    "min_new_tokens": lambda rules, settings: rules.min_new_tokens > 0,
    "suppress_tokens": lambda rules, settings: bool(rules.suppressed),
    "begin_suppress_tokens": lambda rules, settings: bool(rules.suppressed_at_first),
    "bad_words_ids": lambda rules, settings: bool(settings.get("bad_words_ids")),
    "sequence_bias": lambda rules, settings: bool(settings.get("sequence_bias")),
    "forced_bos_token_id": lambda rules, settings: rules.forced_first is not None,
    "forced_eos_token_id": lambda rules, settings: bool(rules.forced_last),
    "exponential_decay_length_penalty": lambda rules, settings: rules.decay is not None,
    "stop_strings": lambda rules, settings: bool(rules.stop_strings),
}
"""For each key whether it asks for something."""


def home_of(settings: Mapping[str, Any]) -> str:
    """The name of the file in which the settings stand."""
    return str(settings.get(TAKEN_FROM, FILE))


def token_ids(value: Any) -> list[int] | None:
    """The ids in a token id or a list of them, also written as 2.0; empty for null; None for another form."""
    listed = [] if value is None else value if isinstance(value, list) else [value]
    ids = [int(each) if isinstance(each, float) and each.is_integer() else each for each in listed]
    return ids if all(map(_is_id, ids)) else None


def shown(value: Any) -> str:
    """A value of the file, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _penalty(settings: Mapping[str, Any], key: str) -> float:
    value = settings.get(key)
    if value is None:
        return 1.0
    if not is_number(value) or not 0 < value < float("inf"):
        raise _wrong(settings, key, "a number above 0")
    return float(value)


def _count(settings: Mapping[str, Any], key: str) -> int:
    value = settings.get(key)
    if value is None:
        return 0
    if not is_number(value) or not float(value).is_integer():
        raise _wrong(settings, key, "a whole number")
    return max(int(value), 0)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ids(settings: Mapping[str, Any], key: str) -> tuple[int, ...]:
    ids = token_ids(settings.get(key))
    if ids is None:
        raise _wrong(settings, key, "a token id or a list of them")
    return tuple(each for each in ids if each >= 0)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sequences(settings: Mapping[str, Any], key: str) -> tuple[tuple[int, ...], ...]:
    value = settings.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(_is_sequence(each) for each in value):
        raise _wrong(settings, key, "a list of lists of token ids")
    return tuple(tuple(each) for each in value)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_id(each) and each >= 0 for each in value)


def _biases(settings: Mapping[str, Any], key: str) -> tuple[tuple[tuple[int, ...], float], ...]:
    value = settings.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(
        isinstance(each, list) and len(each) == 2 and _is_sequence(each[0]) and is_number(each[1]) for each in value
    ):
        raise _wrong(settings, key, "a list of pairs: a list of token ids, and a number")
    return tuple((tuple(tokens), float(bias)) for tokens, bias in value)


def _decay(settings: Mapping[str, Any], key: str) -> tuple[int, float] | None:
    value = settings.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(map(is_number, value)):
        raise _wrong(settings, key, "a list of two numbers")
    return int(value[0]), float(value[1])


def _texts(settings: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = settings.get(key)
    listed = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) and each for each in listed):
        raise _wrong(settings, key, "a text or a list of texts")
    return tuple(listed)


def _wrong(settings: Mapping[str, Any], key: str, wanted: str) -> ModelError:
    file = home_of(settings)
    return ModelError(
        f"{key} = {shown(settings[key])} in {file}: it must be {wanted}",
        where=file,
        cure=f"correct {file}, or remove the key",
    )
