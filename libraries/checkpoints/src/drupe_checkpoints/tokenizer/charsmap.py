"""The compiled rules by which sentencepiece normalizes text, and whether tokenizer.json can say them.

The library `tokenizers` reads the rules as well (its normalizer Precompiled), but follows them only where a single
character is replaced. Rules for several characters compose accents and Korean syllables in nearly all files: the
normalizer NFC does that. Rules for other sequences, which somebody has written by hand, cannot be said.

Two things are kept from happening by a separator that is put between two characters and is taken away at the end: NFC
would sort accents, and Precompiled would drop those behind a character that it replaces.
"""

from __future__ import annotations

import base64
import functools
import struct
import unicodedata

from drupe_checkpoints.tokenizer.parts import Json, replace_pattern
from drupe_checkpoints.tokenizer.parts import replace as replace_text

SHIPPED = frozenset({"nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"})
"""The sets of rules that come with sentencepiece; they have up to 230,000 rules and need not be looked at."""
LONGEST = 64  # bytes of what a rule replaces; sentencepiece's own have up to 16
LEAF, WIDE, LABEL, VALUE = 1 << 8, 1 << 9, 0xFF, (1 << 31) - 1


SEPARATOR = "\U000e0001\U000e0000"
"""No text has it: Unicode has withdrawn the first of the two characters, and has not given out the second."""
JOINED = r"(?<=[\s\S])(?=[\p{M}\u200C\u200D])|(?<=\r)(?=\n)"
"""Where a character begins that is shown together with the one before it. At the start, `tokenizers` would crash."""
ACCENTS = "".join(map(chr, range(0x300, 0x370)))
LETTERS = "".join(map(chr, [*range(0xC0, 0x300), *range(0x370, 0x530), *range(0x1E00, 0x2000)]))
"""Latin, Greek and Cyrillic letters."""


def normalizers(charsmap: bytes, name: str) -> list[Json]:
    """The steps of tokenizer.json that follow the rules. name: of the set of rules. Raises ValueError, struct.error."""
    if not charsmap:
        return []
    composes = name in SHIPPED or any(len(text) > 1 for text in _rules(charsmap))
    compose: list[Json] = [{"type": "NFC"}] if composes else []
    return [
        *([replace_pattern(_kept(), SEPARATOR)] if composes else []),
        *compose,
        replace_pattern(JOINED, SEPARATOR),
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()},
        *compose,  # for what the rules themselves give, such as wide katakana out of narrow ones
        replace_text(SEPARATOR, ""),
    ]


def _kept() -> str:
    """A regular expression for places where NFC does more than the rules.

    It sorts accents, and it adds an accent to a character that has one already.
    """
    order = {each: unicodedata.combining(each) for each in ACCENTS}
    places = []
    for rank in sorted({*order.values()} - {0}):
        behind = "".join(each for each in ACCENTS if order[each] == rank)
        before = "".join(each for each in ACCENTS if order[each] > rank)
        if before:
            places.append(f"(?<=[{before}])(?=[{behind}])")
    composed = "".join(each for each in LETTERS if unicodedata.normalize("NFD", each) != each)
    return "|".join([*places, f"(?<=[{composed}])(?=[{ACCENTS}])"])


def lost_rules(charsmap: bytes, name: str) -> list[tuple[str, str]]:
    """The rules that `normalizers` does not follow: what is replaced, and by what. Raises ValueError, struct.error."""
    if not charsmap or name in SHIPPED:
        return []
    rules = _rules(charsmap)

    def followed(text: str) -> str:
        return "".join(rules.get(each, each) for each in text)

    return [
        (text, by)
        for text, by in rules.items()
        if len(text) > 1
        and by not in (followed(unicodedata.normalize("NFC", text)), followed(unicodedata.normalize("NFKC", text)))
    ]


def single_rules(charsmap: bytes) -> dict[str, str]:
    """The rules for single characters. Raises ValueError, struct.error."""
    return {text: by for text, by in _rules(charsmap, longest=4).items() if len(text) == 1}


def removed(charsmap: bytes) -> str:
    """The characters that the rules leave out. Raises ValueError, struct.error."""
    return "".join(sorted(text for text, by in single_rules(charsmap).items() if not by)) if charsmap else ""


def spaces(charsmap: bytes) -> str:
    """The characters that the rules turn into a space, and the space. Raises ValueError, struct.error."""
    found = [text for text, by in single_rules(charsmap).items() if by == " "] if charsmap else []
    return "".join(sorted({" ", *found}))


@functools.lru_cache(maxsize=2)
def _rules(charsmap: bytes, longest: int = LONGEST) -> dict[str, str]:
    """The rules for texts of up to `longest` bytes.

    They are kept in a double array, as darts-clone builds it: https://github.com/s-yata/darts-clone
    """
    (size,) = struct.unpack_from("<I", charsmap)
    units = struct.unpack_from(f"<{size // 4}I", charsmap, 4)
    texts = charsmap[4 + size :]
    children: dict[int, list[tuple[int, int]]] = {}
    for place, unit in enumerate(units):
        if unit <= VALUE and unit & LABEL:
            children.setdefault(place ^ unit & LABEL, []).append((unit & LABEL, place))
    found: dict[bytes, str] = {}
    waiting = [(0, b"")]
    while waiting:
        place, key = waiting.pop()
        unit = units[place]
        base = place ^ (unit >> 10) << (8 if unit & WIDE else 0)
        if unit & LEAF:
            start = units[base] & VALUE
            found[key] = texts[start : texts.index(0, start)].decode()
        if len(key) < longest:
            waiting += [(child, key + bytes([label])) for label, child in children.get(base, ())]
    return {key.decode(): by for key, by in found.items()}
