"""tokenizer.json from the files that slow tokenizers keep: vocab.json and merges.txt, or vocab.txt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from drupe.api import ModelError
from drupe_checkpoints.tokenizer.classes import AS_WRITTEN, GEMMA, GPT2, LLAMA, NEOX, QWEN2, rebuilt, registered_class
from drupe_checkpoints.tokenizer.parts import Json, bpe, tokenizer_json
from drupe_checkpoints.tokenizer.settings import FETCH_AGAIN, Settings, is_id, read_object
from drupe_files import unreadable

VOCABULARY, MERGES = "vocab.json", "merges.txt"
CLASSES = (QWEN2, GPT2, NEOX, GEMMA, LLAMA, "Qwen3_5Tokenizer", "CohereTokenizer")
"""The classes that put nothing around a text but what the files name."""


def from_vocabulary(settings: Settings, cure: str) -> tuple[Json, Mapping[str, str]]:
    """The tokenizer.json of vocab.json and merges.txt, and the special tokens that its class brings.

    Raises ModelError for files that do not fit together, and for a class whose steps are not known; `cure` is for that.
    """
    path = settings.folder / VOCABULARY
    vocab = read_object(path) or {}
    if not vocab or not all(map(is_id, vocab.values())) or len(set(vocab.values())) != len(vocab):
        raise ModelError(f"{VOCABULARY} does not give each token an id of its own", where=path, cure=FETCH_AGAIN)
    merges = _merges(settings.folder / MERGES)
    strange = next((pair for pair in merges if not {*pair, "".join(pair)} <= vocab.keys()), None)
    if strange is not None:
        raise ModelError(
            f"{MERGES} merges {strange[0]!r} and {strange[1]!r}, and {VOCABULARY} lacks what that needs",
            where=settings.folder / MERGES,
            cure=FETCH_AGAIN,
        )
    name = _class(settings)
    made = rebuilt(name, tokenizer_json(bpe(vocab, merges)), settings) if name in CLASSES else None
    if made is None:
        raise ModelError(
            f"how the tokenizer's class {name!r} splits a text into words is not known",
            where=settings.folder,
            cure=cure,
        )
    return made.document, made.defaults


def _class(settings: Settings) -> str:
    """The class that the files name, if it keeps such files; else that of the model type; else GPT-2's."""
    declared, own = settings.declared_class, registered_class(settings)
    if own in CLASSES and own != LLAMA and declared not in CLASSES:
        return own
    generic = ("", AS_WRITTEN, "PreTrainedTokenizer", "PythonBackend")
    return GPT2 if declared in generic else declared


def merge_lines(path: Path) -> list[str]:
    """The pairs in merges.txt, in their order, each with a space in between. Raises ModelError."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path.name} is not text in UTF-8", where=path, cure=FETCH_AGAIN) from error
    lines = text.replace("\r\n", "\n").split("\n")
    return [line for line in lines if line and not line.startswith("#version")]


def _merges(path: Path) -> list[list[str]]:
    pairs = [line.split(" ") for line in merge_lines(path)]
    wrong = next((pair for pair in pairs if len(pair) != 2 or "" in pair), None)
    if wrong is not None:
        what = f"{path.name} has the line {' '.join(wrong)!r}, which is not a pair"
        raise ModelError(what, where=path, cure=FETCH_AGAIN)
    return pairs
