"""The merges of a tokenizer that is given by pieces and their scores, or by tokens and their ranks.

sentencepiece and tiktoken join two neighbours where the result is a piece, the best score first and, among equals, the
leftmost first. tokenizer.json lists pairs instead, in one order: a pair has the score of what it becomes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

Pair = tuple[str, str]


def merges_by_score(scores: Mapping[str, float]) -> list[Pair]:
    """All pairs of pieces that make a piece; those of the highest score first.

    Where pieces have one score, the pair with the longer left half is first. So a run of spaces grows from the left,
    which is what happens where the leftmost pair is joined first.
    """
    merges: list[Pair] = []
    begun, before = 0, None
    for piece in sorted((piece for piece in scores if len(piece) > 1), key=lambda piece: -scores[piece]):
        if scores[piece] != before:
            _longer_left_first(merges, begun)
            begun, before = len(merges), scores[piece]
        for cut in range(len(piece) - 1, 0, -1):
            left = piece[:cut]
            if left in scores and piece[cut:] in scores:
                merges.append((left, piece[cut:]))
    _longer_left_first(merges, begun)
    return merges


def _longer_left_first(merges: list[Pair], begun: int) -> None:
    """Sort the last merges, which have one score. Those of a single piece are sorted already."""
    if begun < len(merges) and "".join(merges[begun]) != "".join(merges[-1]):
        merges[begun:] = sorted(merges[begun:], key=lambda pair: -len(pair[0]))


def undecided(merges: Sequence[Pair], scores: Mapping[str, float]) -> tuple[str, str] | None:
    """Two pieces of one score that may compete for the same text; None where there are none.

    sentencepiece joins whichever comes first in a text. A list of pairs cannot say that, but for runs of one character.
    """
    for _, group in groupby(merges, key=lambda pair: scores[pair[0] + pair[1]]):
        pairs = list(group)
        if len({left + right for left, right in pairs}) < 2:
            continue
        by_left: dict[str, list[str]] = {}
        for left, right in pairs:
            by_left.setdefault(left, []).append(left + right)
        for left, right in pairs:
            for rival in by_left.get(right, ()):
                if rival != left + right and len({*left, *right, *rival}) > 1:
                    return left + right, rival
    return None


def unreachable(scores: Mapping[str, float]) -> list[str]:
    """The pieces that merging never gives, though the text is the piece."""
    return [piece for piece in scores if len(piece) > 1 and not _merged(piece, scores.get)]


def _merged(piece: str, score: Callable[[str], float | None]) -> bool:
    """Whether merging the characters of a piece gives the piece."""
    parts = list(piece)
    while len(parts) > 1:
        best, at = None, 0
        for place in range(len(parts) - 1):
            found = score(parts[place] + parts[place + 1])
            if found is not None and (best is None or found > best):
                best, at = found, place
        if best is None:
            return False
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return True
