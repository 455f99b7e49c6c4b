"""tokenizer.json from the pieces of sentencepiece, so that both give the same tokens for every text.

`tokenizers` has its own idea of a text with special tokens inside: it is cut there first. How the parts are then read
is what transformers calls `legacy`: as texts of their own (true), or as the rest of one text (false).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from drupe.api import ModelError, Record
from drupe_checkpoints.tokenizer import charsmap
from drupe_checkpoints.tokenizer.merges import Pair, merges_by_score, undecided, unreachable
from drupe_checkpoints.tokenizer.parts import (
    MARK,
    Json,
    added_token,
    bpe,
    metaspace,
    replace_pattern,
    sequence,
    split,
    tokenizer_json,
)
from drupe_checkpoints.tokenizer.parts import replace as replace_text
from drupe_checkpoints.tokenizer.sentencepiece_file import (
    AGAIN,
    BPE,
    BYTE,
    CHARACTER,
    CONTROL,
    NORMAL,
    UNIGRAM,
    UNUSED,
    USER_DEFINED,
    WORD,
    Pieces,
)

WORDS_CURE = (
    "put a tokenizer.json that was made for this model into its folder; transformers makes none that gives the right "
    "tokens out of a model of whole words"
)
UNKNOWN_PENALTY = 10.0
"""How much less an unknown character scores than the worst piece, in sentencepiece and in `tokenizers`."""
KEPT, PRIVATE = "\U000e0003", 0xF0000
"""Two characters stand for a symbol while a text is normalized: one that is not given out, and one for private use."""
SYMBOL_BONUS = 0.1
"""What each byte of a symbol behind the first scores."""
NOTHING = "\U000e0002"
"""Stands for a text of which nothing is left."""
LITERAL_BYTE = r"<(?=0x[0-9A-F]{2}>)"
"""The beginning of a text that looks like the piece of a byte."""


class Reading(Record):
    """How a text is read that has tokens in it which are found first.

    prefix: a space may be put before a text. each_part: before each part of it, too (`legacy` in transformers).
    found_first: tokens that are cut out of a text before sentencepiece sees it.
    """

    prefix: bool = True
    each_part: bool = True
    found_first: frozenset[str] = frozenset()


def converted(pieces: Pieces, reading: Reading, cure: str) -> Json:
    """The tokenizer.json, without a post-processor. Raises ModelError for what it cannot say; `cure` is for that."""
    scores = _scores(pieces, NORMAL)
    merges = merges_by_score(scores) if pieces.algorithm == BPE else []
    refusal = _refusal(pieces) or _refusal_of_merges(pieces, merges, scores)
    if refusal:
        cure = WORDS_CURE if pieces.algorithm == WORD else cure
        raise ModelError(f"{refusal}, which tokenizer.json cannot say", where=pieces.path, cure=cure)
    prefix = pieces.dummy_prefix and reading.prefix
    each_part = reading.each_part or pieces.suffix or not pieces.escapes
    symbols = [pieces.texts[each] for each in pieces.of_kind(USER_DEFINED)]
    symbols = [each for each in symbols if each not in reading.found_first]
    model, cuts = _model(pieces, symbols, merges)
    if model is None:
        raise ModelError(
            "tokenizer.model has symbols of its user and pieces that merging does not give, which tokenizer.json "
            "cannot say together",
            where=pieces.path,
            cure=cure,
        )
    opening = [metaspace("first", " "), metaspace("never")] if prefix and not each_part else []
    return tokenizer_json(
        model,
        added_tokens=[
            added_token(number, pieces.texts[number], special=True)
            for number in sorted([pieces.unk, *pieces.of_kind(CONTROL)])
        ],
        normalizer=sequence("normalizers", _normalizers(pieces, prefix=prefix, each_part=each_part)),
        pre_tokenizer=sequence("pretokenizers", [*opening, *cuts]),
        decoder=_decoder(pieces, prefix=prefix),
    )


def _refusal(pieces: Pieces) -> str:
    """What of the pieces cannot be said, as the beginning of a sentence; empty where all can."""
    name = pieces.path.name
    if pieces.algorithm not in (UNIGRAM, BPE, CHARACTER):
        return f"{name} splits text into whole words"
    try:
        lost = charsmap.lost_rules(pieces.charsmap, pieces.rules)
    except (struct.error, IndexError, ValueError) as error:
        raise ModelError(f"the rules of normalization in {name} are damaged", where=pieces.path, cure=AGAIN) from error
    if lost:
        return f"{name} normalizes texts of several characters, such as {lost[0][0]!r} to {lost[0][1]!r}"
    return ""


def _refusal_of_merges(pieces: Pieces, merges: list[Pair], scores: Mapping[str, float]) -> str:
    """What of the merges cannot be said; see `_refusal`."""
    if pieces.algorithm != BPE:
        return ""
    name = pieces.path.name
    rivals = undecided(merges, scores)
    if rivals:
        return f"{name} has pieces of one score that compete, such as {rivals[0]!r} and {rivals[1]!r}"
    alone = {piece for piece in scores if len(piece) == 1}
    several = [piece for piece in scores if len(piece) > 1 and not alone.issuperset(piece)]
    odd = next((piece for piece in several if _halves(piece, scores.keys() | {*piece})), None)
    if odd:
        return f"{name} has the piece {odd!r}, and no piece for one of its characters"
    used = _scores(pieces, NORMAL, UNUSED)
    unused = next((pieces.texts[each] for each in pieces.of_kind(UNUSED) if _halves(pieces.texts[each], used)), None)
    return f"{name} has the piece {unused!r}, which is split again after merging" if unused else ""


def _halves(piece: str, pieces: dict[str, float] | set[str]) -> bool:
    """Whether a piece can be merged from two others."""
    return any(piece[:cut] in pieces and piece[cut:] in pieces for cut in range(1, len(piece)))


def _kept_symbols(pieces: Pieces) -> dict[str, str]:
    """The symbols of the user that normalization would change, and what stands for each meanwhile; the longest first.

    sentencepiece finds symbols before it normalizes a text, and does not normalize them.
    """
    if not pieces.charsmap:
        return {}
    single = charsmap.single_rules(pieces.charsmap)
    symbols = (pieces.texts[each] for each in pieces.of_kind(USER_DEFINED))
    changed = sorted({each for each in symbols if any(single.get(one, one) != one for one in each)})
    changed.sort(key=len, reverse=True)
    return {text: KEPT + chr(PRIVATE + place) for place, text in enumerate(changed)}


def _scores(pieces: Pieces, *kinds: int) -> dict[str, float]:
    found = zip(pieces.texts, pieces.scores, pieces.kinds, strict=True)
    return {text: score for text, score, kind in found if kind in kinds}


def _model(pieces: Pieces, symbols: list[str], merges: list[Pair]) -> tuple[Json | None, list[Json]]:
    """The model, and the steps before it that cut a text where no piece goes across. No model: it cannot be said."""
    if pieces.algorithm == UNIGRAM:
        return _unigram(pieces)
    long = sorted((each for each in symbols if len(each) > 1), key=len, reverse=True)
    cuts = _cuts_of_controls(pieces) if long and pieces.algorithm == BPE else []
    if cuts is None or (long and pieces.algorithm == BPE and unreachable(_scores(pieces, NORMAL))):
        return None, []
    model = bpe(
        {text: number for number, text in enumerate(pieces.texts)},
        merges,
        unk_token=pieces.texts[pieces.unk],
        fuse_unk=True,
        byte_fallback=pieces.byte_fallback,
        # A symbol is one token, whatever it is made of. So are other parts of a text that are a piece as a whole, but
        # merging gives the same there: `unreachable` has checked it.
        ignore_merges=bool(long),
    )
    return model, [*([split("|".join(map(_escaped, long)))] if long else []), *cuts]


def _cuts_of_controls(pieces: Pieces) -> list[Json] | None:
    """The step that cuts control symbols in two which normalization makes of other texts. sentencepiece finds none.

    None where each place of a symbol is one that a piece goes across.
    """
    controls = [pieces.texts[each] for each in pieces.of_kind(CONTROL) if len(pieces.texts[each]) > 1]
    made = sorted((each for each in controls if MARK in each or pieces.charsmap), key=len, reverse=True)
    pairs = {text[at : at + 2] for text in _scores(pieces, NORMAL) for at in range(len(text) - 1)}
    places = [next((at for at in range(1, len(each)) if each[at - 1 : at + 1] not in pairs), 0) for each in made]
    if not all(places):
        return None
    cut = "|".join(f"{_escaped(each[:at])}(?={_escaped(each[at:])})" for each, at in zip(made, places, strict=True))
    return [split(cut, "MergedWithPrevious")] if made else []


def _escaped(text: str) -> str:
    """A regular expression for a text. Oniguruma takes the escapes of `re`, but for those of spaces and newlines."""
    return re.sub(r"\\(\s)", r"\1", re.escape(text))


def _unigram(pieces: Pieces) -> tuple[Json, list[Json]]:
    """The model that finds the pieces whose scores sum up to most. All kinds of pieces are in one list there.

    Pieces of bytes, unused ones and control symbols must not be found in a text: they score so low that other pieces
    always win. (A control symbol in the text itself is cut out before; one that normalization makes is not.) A symbol
    of the user scores as in sentencepiece 0.2.
    """
    normal = _scores(pieces, NORMAL).values()
    worst = min(normal, default=0.0)
    longest = max(len(text) for text in pieces.texts)
    never = longest * (worst - UNKNOWN_PENALTY) - UNKNOWN_PENALTY

    def score(text: str, own: float, kind: int) -> float:
        if kind == USER_DEFINED:
            return SYMBOL_BONUS * (len(text.encode()) - 1)
        if kind == NORMAL:
            return own
        return never if kind in (BYTE, UNUSED, CONTROL) else worst

    vocab = [
        [text, score(text, own, kind)]
        for text, own, kind in zip(pieces.texts, pieces.scores, pieces.kinds, strict=True)
    ]
    model = {"type": "Unigram", "unk_id": pieces.unk, "vocab": vocab, "byte_fallback": pieces.byte_fallback}
    across = any("<0" in text for text, kind in zip(pieces.texts, pieces.kinds, strict=True) if kind != BYTE)
    cuts = [split(LITERAL_BYTE, "MergedWithPrevious")] if pieces.byte_fallback and not across else []
    return model, cuts


def _normalizers(pieces: Pieces, *, prefix: bool, each_part: bool) -> list[Json]:
    """The steps that a text goes through first. An opening space for the whole text only is put there later."""
    if prefix and pieces.suffix:
        return _normalizers_with_suffix(pieces)
    steps, restored = _keeping(pieces)
    steps += charsmap.normalizers(pieces.charsmap, pieces.rules)
    opening: list[Json] = [{"type": "Prepend", "prepend": _mark(pieces)}] if prefix and each_part else []
    if pieces.fewer_spaces:
        steps += [replace_pattern(" {2,}", " "), *restored, replace_pattern(_ending(pieces), "")]
        if each_part or not prefix:
            steps.append(replace_pattern(r"\A ", ""))
        steps += opening
    else:
        steps = [*opening, *steps, *restored]  # sentencepiece puts it also before a text of which nothing is left
    later = pieces.fewer_spaces and prefix and not each_part
    steps += [replace_text(" ", MARK)] if pieces.escapes and not later else []
    if prefix and not each_part and not pieces.fewer_spaces and (gone := charsmap.removed(pieces.charsmap)):
        # The space of the whole text comes where a text is left; here it is the only one.
        steps = [replace_pattern(rf"\A[{_escaped(gone)}]+\z", NOTHING), *steps, replace_text(NOTHING, " ")]
    return steps


def _normalizers_with_suffix(pieces: Pieces) -> list[Json]:
    """The steps where a space is put behind a text.

    sentencepiece puts it behind each text that is more than spaces, also where nothing is left of the text.
    """
    steps, restored = _keeping(pieces)
    if pieces.fewer_spaces:
        steps.append(replace_pattern(rf"\A[{_escaped(charsmap.spaces(pieces.charsmap))}]+\z", ""))
    steps.append(replace_pattern(r"(?<=[\s\S])\z", _mark(pieces)))
    steps += charsmap.normalizers(pieces.charsmap, pieces.rules)
    steps += [replace_pattern(" {2,}", " ")] if pieces.fewer_spaces else []
    steps += restored
    if pieces.fewer_spaces:
        steps += [replace_pattern(_ending(pieces), _mark(pieces)), replace_pattern(r"\A (?!\z)", "")]
    return [*steps, replace_text(" ", MARK)] if pieces.escapes else steps


def _keeping(pieces: Pieces) -> tuple[list[Json], list[Json]]:
    """The steps that put aside the symbols which normalization would change, and those that bring them back."""
    kept = _kept_symbols(pieces)
    return (
        [replace_text(text, standing) for text, standing in kept.items()],
        [replace_text(standing, text) for text, standing in kept.items()],
    )


def _mark(pieces: Pieces) -> str:
    """What stands for a space."""
    return MARK if pieces.escapes else " "


def _ending(pieces: Pieces) -> str:
    """A regular expression for spaces at the end of a text."""
    return f"[ {MARK}]+\\z" if pieces.escapes else " +\\z"


def _decoder(pieces: Pieces, *, prefix: bool) -> Json | None:
    steps: list[Json] = [replace_text(MARK, " ")] if pieces.escapes else []
    steps += [{"type": "ByteFallback"}] if pieces.byte_fallback else []
    steps.append({"type": "Fuse"})
    if pieces.fewer_spaces:
        steps.append(replace_pattern(r"\A +", ""))
    elif prefix:  # sentencepiece drops a space before a text, also where it puts one behind it
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return sequence("decoders", steps)
