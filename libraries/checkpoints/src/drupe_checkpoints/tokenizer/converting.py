"""From other files to a tokenizer.json: models of sentencepiece, lists of tiktoken, vocab.json with merges.txt."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from drupe.api import ModelError, Notice, Record, field
from drupe_checkpoints.tokenizer.parts import Json, sequence, template
from drupe_checkpoints.tokenizer.settings import TOKENIZER, Settings

MODELS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tiktoken.model")
TEKKEN, PAIRS = "tekken.json", ("vocab.json", "merges.txt")
OTHERS = (*PAIRS, "vocab.txt")
PAIRS_FIRST = ("GPT2Tokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer")
"""The classes that keep their tokenizer in PAIRS, whatever else is in the folder."""
FIRST, LAST = ("<s>", "<bos>", "<|begin_of_text|>"), ("</s>", "<eos>")
"""What the tokens around a text are called where no file names them."""


MADE_FOR_IT = f"put a {TOKENIZER} that was made for this model into the folder"


class Converted(Record):
    """A tokenizer.json out of other files.

    source: the files' names. pieces: they are pieces of sentencepiece, for which text is normalized only behind the
    search for added tokens. begins, ends: a token is put before and behind a text, unless a file says otherwise.
    named: the special tokens that the tokenizer's class brings, by name. notices: what is left out.
    """

    document: Json
    source: str
    pieces: bool = False
    begins: bool = False
    ends: bool = False
    named: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()

    def around(self, settings: Settings, tokens: Sequence[Json]) -> Json | None:
        """The step that puts tokens around a text. tokens: the added ones."""
        ids = {token["content"]: token["id"] for token in tokens}

        def found(name: str, usual: tuple[str, ...]) -> list[tuple[str, int]]:
            named = settings.named(name) or self.named.get(name)
            text = named or next((each for each in usual if each in ids), "")
            return [(text, ids[text])] if text in ids else []

        first = found("bos_token", FIRST) if settings.says("add_bos_token", self.begins) else []
        last = found("eos_token", LAST) if settings.says("add_eos_token", self.ends) else []
        return template(first, last)


def converted(folder: Path, settings: Settings) -> Converted:
    """The tokenizer.json of a folder that has none. Raises ModelError where it cannot be made."""
    ranks = sorted(path.name for path in folder.glob("*.tiktoken"))
    model = next((name for name in (*MODELS, *ranks) if (folder / name).is_file()), None)
    pairs = all((folder / name).is_file() for name in PAIRS)
    if pairs and (model is None or settings.declared_class in PAIRS_FIRST):
        from drupe_checkpoints.tokenizer.from_vocabulary import from_vocabulary

        document, named = from_vocabulary(settings, _way_out(folder))
        return Converted(document, " and ".join(PAIRS), named=named)
    if model is not None:
        return _from_model(folder / model, settings, _way_out(folder))
    if (folder / TEKKEN).is_file():
        from drupe_checkpoints.tokenizer.from_ranks import from_tekken

        return Converted(from_tekken(folder / TEKKEN), TEKKEN, begins=True)
    others = [name for name in OTHERS if (folder / name).is_file()]
    if others:
        what = f"there is no {TOKENIZER}, and {' and '.join(others)} cannot be converted"
        raise ModelError(what, where=folder, cure=_way_out(folder))
    raise ModelError(
        f"there is no {TOKENIZER}", where=folder, cure="copy the tokenizer's files into the checkpoint's folder"
    )


def _from_model(path: Path, settings: Settings, cure: str) -> Converted:
    """The tokenizer.json of a model of sentencepiece, or of a list of tiktoken that has the same name."""
    from drupe_checkpoints.tokenizer.sentencepiece_file import is_sentencepiece

    if is_sentencepiece(path):
        return _from_pieces(path, settings, cure)
    from drupe_checkpoints.tokenizer.from_ranks import from_tiktoken

    document = from_tiktoken(path, settings, cure)
    return Converted(document, path.name, begins=settings.model_type.startswith("llama"))


def _from_pieces(path: Path, settings: Settings, cure: str) -> Converted:
    from drupe_checkpoints.tokenizer.families import OTHER_IDS, WITHOUT_DOCUMENT, family_of, numbered
    from drupe_checkpoints.tokenizer.from_sentencepiece import Reading, converted
    from drupe_checkpoints.tokenizer.sentencepiece_file import read_pieces

    name = settings.declared_class
    if name in OTHER_IDS:
        way_out = f"{MADE_FOR_IT}; transformers makes none for this class" if name in WITHOUT_DOCUMENT else cure
        raise ModelError(f"the tokenizer's class {name} changes what {path.name} says", where=path, cure=way_out)
    pieces, family = numbered(read_pieces(path), settings), family_of(settings)
    decoder = settings.config.get("added_tokens_decoder")
    listed = [token.get("content") for token in decoder.values()] if isinstance(decoder, Mapping) else []
    reading = Reading(
        prefix=settings.says("add_prefix_space", True),
        each_part=settings.says("legacy", True),
        found_first=frozenset(map(str, (*listed, *(settings.added or {})))),
    )
    document = converted(pieces, reading, cure)
    steps = [*family.steps, *([document["normalizer"]] if document["normalizer"] else [])]
    document["normalizer"] = sequence("normalizers", steps)
    notices = (_DECODING,) if pieces.denormalizes else ()
    return Converted(document, path.name, pieces=True, begins=family.first, ends=family.last, notices=notices)


_DECODING = Notice(
    "tokenizer", "left out", "the model of sentencepiece has rules for decoding, which tokenizer.json cannot say"
)


def _way_out(folder: Path) -> str:
    """What a user can do where a tokenizer cannot be said exactly."""
    code = (
        "import sys; from transformers import AutoTokenizer; "
        "AutoTokenizer.from_pretrained(sys.argv[1]).backend_tokenizer.save(sys.argv[2])"
    )
    command = shlex.join(["python", "-c", code, str(folder), str(folder / TOKENIZER)])
    return (
        f"{MADE_FOR_IT}; transformers makes the one that it uses itself, which may give other tokens: "
        f"pip install transformers sentencepiece protobuf tiktoken, then {command}"
    )
