"""Notices on generation_config.json: unknown keys, values without effect, and settings that no runtime keeps to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from drupe.api import ModelError, Notice, nearest
from drupe_decoding.generation_keys import GENERATION_KEYS, IGNORED, IGNORED_IN_SAMPLING, RULES, SAMPLING
from drupe_decoding.generation_rules import GenerationRules, home_of, is_number, shown, token_ids

SAMPLING_VALUES: Mapping[str, tuple[Any, Callable[[Any], bool], str]] = {
    "do_sample": (False, lambda value: isinstance(value, bool), "true or false"),
    "temperature": (1.0, lambda value: is_number(value) and 0 <= value < float("inf"), "a number from 0"),
    "top_k": (50, lambda value: is_number(value) and value >= 0 and float(value).is_integer(), "a whole number from 0"),
    "top_p": (1.0, lambda value: is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
}
"""For each key of sampling transformers' default, which values are possible, and that in words."""
TOKEN_LISTS = (
    "bos_token_id", "eos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id",
    "forced_eos_token_id",
)  # fmt: skip
TOKEN_SEQUENCES = ("bad_words_ids", "sequence_bias")
COUNTS = ("min_length", "min_new_tokens", "no_repeat_ngram_size")


def sampling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How scripts sample: the settings of sampling, with transformers' defaults for missing and impossible values.

    A temperature of 0 asks for the likeliest token, so nothing is sampled.
    """
    found = {}
    for key, (default, possible, _) in SAMPLING_VALUES.items():
        value = settings.get(key)
        found[key] = value if value is not None and possible(value) else default
    if found["temperature"] == 0:
        found |= {"do_sample": False, "temperature": 1.0}
    return found | {"top_k": int(found["top_k"])}


def asks_for_something(settings: Mapping[str, Any]) -> bool:
    """Whether any setting differs from what generate() does by default. Raises ModelError for an impossible rule."""
    return bool(GenerationRules.read(settings).asked or _impossible(settings) or _ignored(settings)) or sampling(
        settings
    ) != sampling({})


def overruled_settings(settings: Mapping[str, Any], counting: Mapping[str, Any]) -> list[str]:
    """The keys of `settings` that ask for something which `counting`, the settings that count, do not say."""
    return [
        key
        for key in sorted(SAMPLING | RULES)
        if settings.get(key) is not None and settings[key] != counting.get(key) and _asks(key, settings[key])
    ]


def _asks(key: str, value: Any) -> bool:
    try:
        return asks_for_something({key: value})
    except ModelError:
        return True


def generation_notices(settings: Mapping[str, Any], rows: int | None = None) -> Iterator[Notice]:
    """Notices on what scripts, or all runtimes, do not keep to. rows: how many tokens the model has.

    settings: the content of generation_config.json. Raises ModelError for a rule that generate() does not take.
    """
    rules, file = GenerationRules.read(settings), home_of(settings)
    if beyond := sorted(rules.beyond_search):
        yield Notice(
            file,
            "served by Drupe only",
            f"{', '.join(beyond)}: drupe generate, drupe chat and drupe.open() keep to "
            f"{'it' if len(beyond) == 1 else 'them'}; a plain onnxruntime-genai script does not",
            "in a script of your own, change the logits before each token: get_logits() and set_logits() of "
            "onnxruntime-genai's Generator",
        )
    if ignored := _ignored(settings):
        yield Notice(
            file,
            "has no effect",
            f"{', '.join(f'{key} = {shown(settings[key])}' for key in ignored)}: answers are made without "
            f"{'it' if len(ignored) == 1 else 'them'}",
        )
    yield from _without_effect(settings, file, rows)
    yield from _unknown(settings, file)


def _without_effect(settings: Mapping[str, Any], file: str, rows: int | None) -> Iterator[Notice]:
    """Values that transformers refuses while it samples, or that ask for nothing."""
    for key in _impossible(settings):
        default, _, wanted = SAMPLING_VALUES[key]
        yield _no_effect(file, key, settings[key], f"it must be {wanted}; scripts use {shown(default)}")
    if settings.get("temperature") == 0 and settings.get("do_sample") is True:
        yield _no_effect(file, "do_sample", True, "temperature is 0, so the likeliest token is taken")
    for key in COUNTS:
        value: Any = settings.get(key)
        if is_number(value) and value < 0:
            yield _no_effect(file, key, value, "a negative number asks for nothing")
    for key in (*TOKEN_LISTS, *TOKEN_SEQUENCES):
        if outside := [token for token in _tokens(settings, key) if token < 0 or (rows is not None and token >= rows)]:
            held = f"the model's tokens are 0 to {rows - 1}" if rows is not None else "no token is negative"
            yield _no_effect(file, key, outside[0] if len(outside) == 1 else outside, held)


def _unknown(settings: Mapping[str, Any], file: str) -> Iterator[Notice]:
    unknown = [key for key, value in settings.items() if key not in GENERATION_KEYS and value is not None]
    if not unknown:
        return
    close = {key: found[0] for key in unknown if (found := nearest(key, sorted(GENERATION_KEYS)))}
    similar = ", ".join(f"{right} (for {wrong})" for wrong, right in close.items())
    yield Notice(
        file,
        "has no effect",
        f"{'a key is' if len(unknown) == 1 else f'{len(unknown)} keys are'} not known and taken to change nothing, as "
        f"in transformers: {', '.join(unknown)}",
        f"correct the name if another key is meant: {similar}" if close else "",
    )


def _impossible(settings: Mapping[str, Any]) -> list[str]:
    """The keys of sampling with impossible values."""
    given = {key: settings.get(key) for key in SAMPLING_VALUES}
    return [key for key, value in given.items() if value is not None and not SAMPLING_VALUES[key][1](value)]


def _ignored(settings: Mapping[str, Any]) -> list[str]:
    """The keys that ask for something that no runtime does."""
    rules = {**IGNORED, **(IGNORED_IN_SAMPLING if settings.get("do_sample") is True else {})}
    return sorted(key for key, asks_nothing in rules.items() if not asks_nothing(settings.get(key)))


def _tokens(settings: Mapping[str, Any], key: str) -> list[int]:
    """The tokens that a setting names; `GenerationRules.read` has checked its form, except of bos and pad."""
    value = settings.get(key)
    if value is None:
        return []
    if key in TOKEN_SEQUENCES:
        sequences = value if key == "bad_words_ids" else [sequence for sequence, _ in value]
        return [token for sequence in sequences for token in sequence]
    return token_ids(value) or []


def _no_effect(file: str, key: str, value: Any, why: str) -> Notice:
    return Notice(file, "has no effect", f"{key} = {shown(value)}: {why}", f"correct {file}, or remove the key")
