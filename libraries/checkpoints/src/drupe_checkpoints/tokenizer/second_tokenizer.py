"""A second tokenizer in a folder: whether it says something else than tokenizer.json, which is the one believed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from drupe.api import ModelError, Notice, counted
from drupe_checkpoints.tokenizer.added_tokens import ABOUT
from drupe_checkpoints.tokenizer.families import FAMILIES, OTHER_IDS
from drupe_checkpoints.tokenizer.from_ranks import ids_of
from drupe_checkpoints.tokenizer.from_vocabulary import MERGES, VOCABULARY, merge_lines
from drupe_checkpoints.tokenizer.parts import Json
from drupe_checkpoints.tokenizer.sentencepiece_file import CONTROL, UNKNOWN, is_sentencepiece, read_pieces
from drupe_checkpoints.tokenizer.settings import Settings, read_object

MODELS = ("tokenizer.model", "spiece.model")


def differing(folder: Path, settings: Settings, document: Json, vocabulary: Mapping[str, int]) -> list[Notice]:
    """What is said of other tokenizers beside tokenizer.json. Tokens, ids and merges are compared, scores are not."""
    added = {each["content"]: each.get("id") for each in document.get("added_tokens") or () if "content" in each}
    known = {**vocabulary, **added}
    notices = []
    for name in (*MODELS, VOCABULARY, MERGES):
        if not (folder / name).is_file() or (name == MERGES and not (folder / VOCABULARY).is_file()):
            continue
        try:
            said = _merges(folder, document) if name == MERGES else _tokens(_read(folder / name, settings), known)
        except ModelError as error:
            said = f"cannot be read ({error.what})"
        if said:
            notices.append(
                Notice(
                    ABOUT,
                    "left out",
                    f"{name} {said}; tokenizer.json is believed, as in transformers 5",
                    f"remove {name} if it is not this model's, or tokenizer.json if {name} is",
                )
            )
    return notices


def _read(path: Path, settings: Settings) -> Mapping[str, int]:
    """The tokens of another file that have a meaning of their own. Raises ModelError."""
    if path.name == VOCABULARY:
        return read_object(path) or {}
    if not is_sentencepiece(path):
        return ids_of(path)
    if settings.declared_class in OTHER_IDS or settings.declared_class in FAMILIES:
        return {}
    pieces = read_pieces(path)
    found = enumerate(zip(pieces.texts, pieces.kinds, strict=True))
    return {text: number for number, (text, kind) in found if kind not in (CONTROL, UNKNOWN)}


def _tokens(other: Mapping[str, int], known: Mapping[str, int]) -> str:
    """How the tokens of another file differ; empty where they do not. It may have fewer tokens."""
    if other.items() <= known.items():
        return ""
    strange = [text for text, number in other.items() if known.get(text) != number]
    text = strange[0]
    here = f"the id {known[text]}" if text in known else "no such token"
    return (
        f"says something else than tokenizer.json of {len(strange)} of its {counted(len(other), 'token')}, such "
        f"as {text!r} "
        f"(id {other[text]}; tokenizer.json has {here})"
    )


def _merges(folder: Path, document: Json) -> str:
    held = [" ".join(each) if isinstance(each, list) else each for each in document["model"].get("merges") or ()]
    other = merge_lines(folder / MERGES)
    return "" if held == other else f"has {counted(len(other), 'merge')}, and tokenizer.json {len(held)} others"
