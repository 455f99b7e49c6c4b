"""From a checkpoint's folder to one tokenizer.json: which file is believed, and what a user should know of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupe.api import ModelError, Notice
from drupe_checkpoints.tokenizer.added_tokens import ABOUT, gathered
from drupe_checkpoints.tokenizer.classes import AS_WRITTEN, class_of, is_settled, rebuilt
from drupe_checkpoints.tokenizer.parts import Json, encoded, template
from drupe_checkpoints.tokenizer.settings import CONFIG, Settings, read_object

TOKENIZER = "tokenizer.json"
SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tiktoken.model")
SOURCES = (TOKENIZER, *SENTENCEPIECE, "tekken.json", "vocab.json", "merges.txt", "vocab.txt")
"""Every file that a tokenizer may be in, but for those of tiktoken that are called after their model."""
BESIDE = "put a tokenizer.json that was made for this model into the folder"


@dataclass(frozen=True)
class ResolvedTokenizer:
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
    """A tokenizer.json, changed where the files beside it say more or the tokenizer's class changes it."""
    from drupe_checkpoints.tokenizer.second import differing

    path = folder / TOKENIZER
    document = read_object(path) or {}
    model = document.get("model")
    vocabulary = _vocabulary(model)
    if vocabulary is None:
        return ResolvedTokenizer(path)
    name = class_of(settings, document)
    made = rebuilt(name, document, settings)
    notices = [*differing(folder, settings, document, vocabulary), *_without_effect(settings, document)]
    held = _list(document.get("added_tokens"))
    outcome = gathered(
        vocabulary,
        held,
        settings,
        kept=made is None,
        defaults=made.defaults if made else (),
        plain=made.plain if made else False,
    )
    notices += outcome.notices
    changed = dict(made.document) if made else dict(document)
    if made and (changed != document):
        notices.append(_by_class(settings, name, made.document, document))
    if {each["content"]: each for each in held if "content" in each} != {
        each["content"]: each for each in outcome.tokens
    }:
        changed["added_tokens"] = outcome.tokens
    if changed == document:
        return ResolvedTokenizer(path, tuple(notices))
    return ResolvedTokenizer(encoded(changed), tuple(notices))


def _converted(folder: Path, settings: Settings) -> ResolvedTokenizer:
    """A tokenizer.json out of other files."""
    document, defaults, source = _other_source(folder, settings)
    outcome = gathered(
        _vocabulary(document["model"]) or {}, document["added_tokens"], settings, defaults=defaults, source=source
    )
    document["added_tokens"] = [{**token, "normalized": False} for token in outcome.tokens]
    document["post_processor"] = document["post_processor"] or _around(settings, outcome.tokens, document)
    said = Notice(ABOUT, "rewritten", f"there is no {TOKENIZER}; it is made from {source}")
    return ResolvedTokenizer(encoded(document), (said, *outcome.notices))


def _other_source(folder: Path, settings: Settings) -> tuple[Json, tuple[str, ...], str]:
    """The tokenizer.json that the folder's other files make, the special tokens of its class, and the files' name."""
    cure = _way_out(folder)
    ranks = sorted(path.name for path in folder.glob("*.tiktoken"))
    model = next((name for name in (*SENTENCEPIECE, *ranks) if (folder / name).is_file()), None)
    pairs = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    if pairs and (model is None or settings.declared_class.startswith(("GPT2", "Qwen2", "GPTNeoX"))):
        from drupe_checkpoints.tokenizer.from_vocabulary import from_vocabulary

        document, defaults = from_vocabulary(settings, cure)
        return document, defaults, "vocab.json and merges.txt"
    if model is not None:
        return _from_model(folder / model, settings, cure), (), model
    if (folder / "tekken.json").is_file():
        from drupe_checkpoints.tokenizer.from_ranks import from_tekken

        return from_tekken(folder / "tekken.json"), (), "tekken.json"
    others = [name for name in SOURCES if (folder / name).is_file()]
    if others:
        raise ModelError(
            f"there is no {TOKENIZER}, and {' and '.join(others)} cannot be converted", where=folder, cure=cure
        )
    raise ModelError(
        f"there is no {TOKENIZER}", where=folder, cure="copy the tokenizer's files into the checkpoint's folder"
    )


def _from_model(path: Path, settings: Settings, cure: str) -> Json:
    """The tokenizer.json of a model of sentencepiece, or of a list of tiktoken that has the same name."""
    from drupe_checkpoints.tokenizer.sentencepiece_file import is_sentencepiece, read_pieces

    if not is_sentencepiece(path):
        from drupe_checkpoints.tokenizer.from_ranks import from_tiktoken

        return from_tiktoken(path, settings, cure)
    from drupe_checkpoints.tokenizer.families import OTHER_IDS, numbered
    from drupe_checkpoints.tokenizer.from_sentencepiece import Reading, converted

    if settings.declared_class in OTHER_IDS:
        raise ModelError(
            f"the tokenizer's class {settings.declared_class} changes what {path.name} says", where=path, cure=cure
        )
    pieces = numbered(read_pieces(path), settings)
    found_first = {str(token.get("content")) for token in _decoder(settings)} | {*(settings.added or {})}
    reading = Reading(
        prefix=settings.says("add_prefix_space", True),
        each_part=settings.says("legacy", True),
        found_first=frozenset(found_first),
    )
    return converted(pieces, reading, cure)


def _around(settings: Settings, tokens: list[Json], document: Json) -> Json | None:
    """The step that puts tokens around a text, by the files or else by the habit of the tokenizer's class."""
    from drupe_checkpoints.tokenizer.families import family_of

    family = family_of(settings)
    by_bytes = document["pre_tokenizer"] is not None and "ByteLevel" in str(document["pre_tokenizer"])
    ids = {token["content"]: token["id"] for token in tokens}

    def found(key: str, wanted: bool, usual: tuple[str, ...]) -> list[tuple[str, int]]:
        text = settings.named(key) or next((each for each in usual if each in ids), "")
        return [(text, ids[text])] if wanted and text in ids else []

    first = settings.says("add_bos_token", family.first and (not by_bytes or _begins(ids)))
    last = settings.says("add_eos_token", family.last)
    return template(
        found("bos_token", first, ("<s>", "<bos>", "<|begin_of_text|>")), found("eos_token", last, ("</s>", "<eos>"))
    )


def _begins(ids: Mapping[str, int]) -> bool:
    """Whether a byte-level tokenizer is one of Llama 3 or Mistral, which put a token before a text."""
    return "<|begin_of_text|>" in ids or "[INST]" in ids


def _vocabulary(model: Any) -> dict[str, int] | None:
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
    if settings.config.get("split_special_tokens"):
        what = f"{CONFIG} says split_special_tokens = true; special tokens in a text are one token all the same"
        notices.append(Notice(ABOUT, "has no effect", what))
    return notices


def _by_class(settings: Settings, name: str, made: Json, document: Json) -> Notice:
    """What is said where the tokenizer's class decides, not tokenizer.json."""
    parts = [part for part in ("normalizer", "pre_tokenizer", "decoder", "model", "post_processor")
             if made.get(part) != document.get(part)]  # fmt: skip
    what = (
        f"the class {name} has its own {' and '.join(parts)} in transformers 5, and {TOKENIZER} has another; "
        "the class is believed, as in transformers 5"
    )
    cure = f'write "tokenizer_class": "{AS_WRITTEN}" into {CONFIG} if {TOKENIZER} is right'
    return Notice(ABOUT, "rewritten", what, "" if is_settled(settings) else cure)


def _decoder(settings: Settings) -> list[Mapping[str, Any]]:
    decoder = settings.config.get("added_tokens_decoder")
    return [token for token in decoder.values() if isinstance(token, Mapping)] if isinstance(decoder, Mapping) else []


def _list(value: Any) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _way_out(folder: Path) -> str:
    """What a user can do where a tokenizer cannot be said exactly."""
    code = (
        "import sys; from transformers import AutoTokenizer; "
        "AutoTokenizer.from_pretrained(sys.argv[1]).backend_tokenizer.save(sys.argv[2])"
    )
    command = shlex.join(["python", "-c", code, str(folder), str(folder / TOKENIZER)])
    return (
        f"{BESIDE}; transformers makes one that may give other tokens in places: "
        f"pip install transformers sentencepiece protobuf tiktoken, then {command}"
    )
