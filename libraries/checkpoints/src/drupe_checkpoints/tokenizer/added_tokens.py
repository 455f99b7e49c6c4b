"""The added and special tokens that all files together name, as transformers 5 ends up with them.

transformers gathers them from tokenizer_config.json, special_tokens_map.json and added_tokens.json, and adds them to
those of tokenizer.json one after another. A token that the vocabulary has keeps its id; any other gets the next free
one, whatever id a file gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from drupe.api import Notice, Record, counted, replace
from drupe_checkpoints.tokenizer.parts import Json, added_token
from drupe_checkpoints.tokenizer.settings import ADDED_TOKENS, CONFIG, Settings, content_of, is_id

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
ABOUT = "tokenizer"
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


class Token(Record):
    """A token that is found in a text before anything else, as tokenizer.json has it."""

    content: str
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False

    @classmethod
    def of(cls, value: Any, *, special: bool) -> Token | None:
        """A token out of a file, kept as a text or as an object; special: unless the object says it."""
        content = content_of(value)
        if content is None:
            return None
        if not isinstance(value, Mapping):
            return cls(content, special, normalized=not special)
        said = bool(value.get("special", special))
        flags = {flag: bool(value.get(flag, flag == "normalized" and not said)) for flag in FLAGS}
        return cls(content, said, **flags)

    def json(self, number: int) -> Json:
        flags = {flag: getattr(self, flag) for flag in FLAGS}
        return added_token(number, self.content, special=self.special, **flags)


class Added:
    """The tokens that are added to a vocabulary, by id. `tokenizers` gives them ids as `add` does."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._vocabulary = vocabulary
        self.tokens: dict[int, Token] = {}
        self.ids: dict[str, int] = {}

    def add(self, token: Token) -> int:
        """Add a token, or give one other flags; returns its id. A special token stays special."""
        number = self.ids.get(token.content, self._vocabulary.get(token.content))
        if number is None:
            number = max(len(self._vocabulary), max(self.tokens, default=-1) + 1)
        before = self.tokens.get(number)
        self.ids[token.content] = number
        self.tokens[number] = replace(token, special=True) if before and before.special else token
        return number

    def json(self) -> list[Json]:
        return [token.json(number) for number, token in sorted(self.tokens.items())]


class Wanted(Record):
    """A token that a file names. number: the id that the file gives it, if any."""

    token: Token
    source: str
    number: int | None = None


class Gathered(Record):
    """tokens: as tokenizer.json lists them."""

    tokens: list[Json]
    notices: tuple[Notice, ...]


def gathered(
    vocabulary: Mapping[str, int], held: Sequence[Json], settings: Settings, *, kept: bool = True,
    defaults: Mapping[str, str] = MappingProxyType({}), plain: bool = False, source: str = "tokenizer.json",
) -> Gathered:  # fmt: skip
    """All added tokens of a tokenizer.

    vocabulary: that of the model. held: the added tokens of `source`. kept: they are there before others are added.
    defaults: special tokens that the tokenizer's class brings where no file names others, by name; those that the
    vocabulary lacks get ids behind it, as in transformers 5. plain: the class gives all special tokens the usual flags
    at the end.
    """
    added = Added(vocabulary)
    here = [Wanted(token, source, each.get("id")) for each in held if (token := Token.of(each, special=False))]
    moved = [(wanted, at) for wanted in here if kept and (at := added.add(wanted.token)) != wanted.number]
    listed, notices = _by_id(settings, here)
    names = _names(settings, defaults)
    special = dict(_names(settings))
    for number in sorted(listed):
        wanted = listed[number]
        token = wanted.token if wanted.token.content not in special else replace(wanted.token, special=True)
        at = added.add(token)
        moved += [(wanted, at)] if at != wanted.number and (wanted, at) not in moved else []
    notices += _moved(moved)
    known = {*added.ids}
    for text, _ in names:
        if text not in known:
            known.add(text)
            added.add(_flagged(settings, text))
    extra = _extra(settings)
    for token in extra:
        if token.content not in known:
            known.add(token.content)
            added.add(token)
        elif not added.tokens[added.ids[token.content]].special:
            notices.append(_stays_plain(token.content))
    if plain:
        for text in (*special, *(each.content for each in extra)):
            added.add(Token(text, special=True))
    notices += _put_in(added, {wanted.token.content: wanted.token for wanted in here}, source)
    return Gathered(added.json(), tuple(dict.fromkeys(notices)))


def _by_id(settings: Settings, here: Sequence[Wanted]) -> tuple[dict[int, Wanted], list[Notice]]:
    """The tokens that are listed with ids, and what is lost where two of them have one id."""
    decoder = settings.config.get("added_tokens_decoder")
    if isinstance(decoder, Mapping):
        tokens = (
            (int(number), Token.of(value, special=False)) for number, value in decoder.items() if number.isdigit()
        )
        return {number: Wanted(token, CONFIG, number) for number, token in tokens if token}, []
    special = {text for text, _ in _names(settings)} | {token.content for token in _extra_first(settings)}
    found: dict[int, Wanted] = {}
    lost: list[Notice] = []

    def put(number: int, wanted: Wanted) -> None:
        before = found.get(number)
        if before is not None and before.token.content != wanted.token.content and before not in here:
            lost.append(_replaced(number, before, wanted))
        found[number] = wanted

    for text, number in (settings.added or {}).items():
        if text:
            is_special = text in special
            put(number, Wanted(Token(text, is_special, normalized=not is_special), ADDED_TOKENS, number))
    for wanted in here:
        if wanted.number is not None and is_id(wanted.number):
            put(wanted.number, wanted)
    return found, lost


def _names(settings: Settings, defaults: Mapping[str, str] = MappingProxyType({})) -> list[tuple[str, str]]:
    """The special tokens that have a name: text and name. The model may have names of its own, such as image_token.

    defaults: those of the class, by name, where no file names one.
    """
    config = {**settings.config, **(settings.special if "added_tokens_decoder" not in settings.config else {})}
    own = {key: value for key, value in config.items() if key.endswith("_token") and key not in NAMES}
    extra = config.get("extra_special_tokens")
    usual = {name: config.get(name) or defaults.get(name) for name in NAMES}
    named = usual | own | (dict(extra) if isinstance(extra, Mapping) else {})
    return [
        (text, name) for name, value in named.items() if not isinstance(value, bool) and (text := content_of(value))
    ]


def _extra(settings: Settings) -> list[Token]:
    """The special tokens that are only listed; the first list that has any is taken."""
    older = (
        [] if "added_tokens_decoder" in settings.config else _list(settings.special.get("additional_special_tokens"))
    )
    return _extra_first(settings) or _tokens_of(older)


def _extra_first(settings: Settings) -> list[Token]:
    """The listed special tokens that transformers knows when it reads added_tokens.json."""
    config = settings.config
    listed = _list(config.get("extra_special_tokens")) or _list(config.get("additional_special_tokens"))
    more = [] if "added_tokens_decoder" in config else _list(settings.special.get("extra_special_tokens"))
    return _tokens_of([*listed, *more])


def _tokens_of(values: Iterable[Any]) -> list[Token]:
    return [token for value in values if (token := Token.of(value, special=True))]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _flagged(settings: Settings, text: str) -> Token:
    """A named token with the flags that its file gives it."""
    for file in (settings.special, settings.config):
        for key in file:
            if key.endswith("_token") and content_of(file[key]) == text:
                token = Token.of(file[key], special=True)
                if token:
                    return replace(token, special=True)
    return Token(text, special=True)


def _moved(moved: Sequence[tuple[Wanted, int]]) -> list[Notice]:
    """What is said of tokens that have another id than a file gives them."""
    if not moved:
        return []
    wanted, number = moved[0]
    more = f", and so with {_tokens(len(moved) - 1)} more" if len(moved) > 1 else ""
    text = (
        f"{wanted.source} gives the token {wanted.token.content!r} the id {wanted.number}, and it has {number}, as in "
        f"transformers 5{more}"
    )
    return [Notice(ABOUT, "chosen", text, "check that the model was trained with these ids")]


def _replaced(number: int, before: Wanted, wanted: Wanted) -> Notice:
    return Notice(
        ABOUT,
        "left out",
        f"{before.source} gives the id {number} to {before.token.content!r}, and {wanted.source} to "
        f"{wanted.token.content!r}, which is kept, as in transformers 5",
        "give each token an id of its own",
    )


def _stays_plain(text: str) -> Notice:
    return Notice(
        ABOUT,
        "has no effect",
        f"the token {text!r} is listed as special, and another file has it as a plain one, which it stays, as in "
        "transformers 5",
        "mark it as special where it has an id if it must not be shown",
    )


def _put_in(added: Added, own: Mapping[str, Token], source: str) -> list[Notice]:
    """What is said of tokens that `source` lacks or has with other flags."""
    new = [(number, token.content) for number, token in sorted(added.tokens.items()) if token.content not in own]
    other = [token.content for token in added.tokens.values() if own.get(token.content, token) != token]
    notices = []
    if new:
        number, text = new[0]
        what = f"{_tokens(len(new))} of other files, such as {text!r} with the id {number}, put into tokenizer.json"
        notices.append(Notice(ABOUT, "rewritten", what))
    if other:
        what = f"{source} and other files describe {_tokens(len(other))} differently, such as {other[0]!r}"
        notices.append(Notice(ABOUT, "rewritten", f"{what}; the other files are believed, as in transformers 5"))
    return notices


def _tokens(count: int) -> str:
    return counted(count, "token")
