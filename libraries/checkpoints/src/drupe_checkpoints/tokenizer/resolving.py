"""From a checkpoint's folder to one tokenizer.json: which file is believed, and what a user should know of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import Notice, Record
from drupe_checkpoints.tokenizer.added_tokens import ABOUT, gathered
from drupe_checkpoints.tokenizer.classes import class_of, rebuilt
from drupe_checkpoints.tokenizer.parts import Json, encoded
from drupe_checkpoints.tokenizer.settings import CONFIG, TOKENIZER, Settings, read_object


class ResolvedTokenizer(Record):
    """A tokenizer.json, as the checkpoint's file or as its content, and what a user should know of it."""

    content: Path | bytes
    notices: tuple[Notice, ...] = ()


def resolve(folder: Path, model: Mapping[str, Any]) -> ResolvedTokenizer:
    """The tokenizer of the checkpoint in `folder`. model: the content of config.json.

    Raises ModelError where there is no tokenizer, or none that tokenizer.json can say.
    """
    settings = Settings.read(folder, model)
    if (folder / TOKENIZER).is_file():
        return _as_kept(folder, settings)
    return _converted(folder, settings)


def _as_kept(folder: Path, settings: Settings) -> ResolvedTokenizer:
    """A tokenizer.json, with the tokens that only files beside it name.

    Its steps are believed, whatever the tokenizer's class would do in transformers 5: they are what the model was
    published with, and what every other reader of the file takes.
    """
    from drupe_checkpoints.tokenizer.second_tokenizer import differing

    path = folder / TOKENIZER
    document = read_object(path) or {}
    model = document.get("model")
    vocabulary = vocabulary_of(model)
    if vocabulary is None:
        return ResolvedTokenizer(path)
    name = class_of(settings, document)
    made = rebuilt(name, document, settings)
    notices = [*differing(folder, settings, document, vocabulary), *_without_effect(settings, document)]
    if made and made.document != document:
        notices.append(_against_the_class(name, made.document, document))
        made = None
    held = _list(document.get("added_tokens"))
    outcome = gathered(
        vocabulary,
        held,
        settings,
        kept=made is None,
        defaults=made.defaults if made else {},
        plain=made.plain if made else False,
    )
    notices += outcome.notices
    changed = dict(document)
    if sorted(held, key=lambda each: str(each.get("id"))) != sorted(outcome.tokens, key=lambda each: str(each["id"])):
        changed["added_tokens"] = outcome.tokens
    if isinstance(model, dict) and model.get("dropout"):
        changed["model"] = {**model, "dropout": None}
        notices.append(_dropout(model["dropout"]))
    if changed == document:
        return ResolvedTokenizer(path, tuple(notices))
    return ResolvedTokenizer(encoded(changed), tuple(notices))


def _converted(folder: Path, settings: Settings) -> ResolvedTokenizer:
    """A tokenizer.json out of other files."""
    from drupe_checkpoints.tokenizer.converting import converted

    made = converted(folder, settings)
    outcome = gathered(
        vocabulary_of(made.document["model"]) or {},
        made.document["added_tokens"],
        settings,
        defaults=made.named,
        source=made.source,
    )
    tokens = [{**token, "normalized": False} for token in outcome.tokens] if made.pieces else outcome.tokens
    changed = {**made.document, "added_tokens": tokens, "post_processor": made.around(settings, tokens)}
    said = Notice(ABOUT, "rewritten", f"there is no {TOKENIZER}; it is made from {made.source}")
    return ResolvedTokenizer(encoded(changed), (said, *made.notices, *outcome.notices))


def vocabulary_of(model: Any) -> dict[str, int] | None:
    """The model's tokens and ids; None where it is no model of tokenizer.json."""
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        return vocab
    if isinstance(vocab, list):
        return {each[0]: number for number, each in enumerate(vocab) if isinstance(each, list) and each}
    return None


def _without_effect(settings: Settings, document: Json) -> list[Notice]:
    """Settings of tokenizer_config.json that transformers does not follow where there is a tokenizer.json."""
    around = str(document.get("post_processor"))
    notices = []
    for key, name, place in (("add_bos_token", "bos_token", "before"), ("add_eos_token", "eos_token", "behind")):
        said, token = settings.config.get(key), settings.named(name)
        if not isinstance(said, bool) or token is None or said == (repr(token) in around):
            continue
        what = (
            f"{CONFIG} says {key} = {str(said).lower()}, and {TOKENIZER} puts {'no token' if said else repr(token)} "
            f"{place} a text; {TOKENIZER} is believed, as in transformers 5"
        )
        notices.append(Notice(ABOUT, "has no effect", what, f"change the post_processor of {TOKENIZER}"))
    if settings.config.get("clean_up_tokenization_spaces") and document["model"].get("type") != "BPE":
        what = f"{CONFIG} says clean_up_tokenization_spaces = true; spaces before punctuation stay in decoded text"
        notices.append(Notice(ABOUT, "has no effect", what))
    if settings.config.get("split_special_tokens"):
        what = f"{CONFIG} says split_special_tokens = true; special tokens in a text are one token all the same"
        notices.append(Notice(ABOUT, "has no effect", what))
    return notices


def _against_the_class(name: str, made: Json, document: Json) -> Notice:
    """What is said where the tokenizer's class would read tokenizer.json in another way."""
    parts = [part for part in ("normalizer", "pre_tokenizer", "decoder", "model", "post_processor")
             if made.get(part) != document.get(part)]  # fmt: skip
    what = (
        f"{TOKENIZER} is believed; the class {name} has its own {' and '.join(parts)} in transformers 5, which makes "
        "other tokens of some texts"
    )
    cure = "save the tokenizer with transformers 5 (save_pretrained) and optimize again if the class is right"
    return Notice(ABOUT, "chosen", what, cure)


def _dropout(share: float) -> Notice:
    what = f"{TOKENIZER} leaves out merges at random (dropout {share:g}), as in training; the package's leaves out none"
    return Notice(ABOUT, "rewritten", what)


def _list(value: Any) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
