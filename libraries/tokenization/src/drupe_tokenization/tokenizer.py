"""Tokenizer, TextStream: from text to tokens and back with tokenizer.json, as in transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drupe_tokenization.tokenizer_file import read_tokenizer


class Tokenizer:
    """The tokenizer of a model's folder. Raises ModelError for a missing or broken tokenizer."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = read_tokenizer(folder, "read or write text")

    def encode(self, text: str) -> list[int]:
        """The text's tokens, with the beginning of sequence if the tokenizer puts one before a text.

        A text from a chat template begins with that token already; it is not added twice. No end of sequence is added,
        because the text will be continued.
        """
        text = text.encode("utf-8", "replace").decode("utf-8")
        plain: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        special: list[int] = self._tokenizer.encode(text, add_special_tokens=True).ids
        return with_beginning(plain, special)

    def encode_whole(self, text: str, most: int | None = None) -> list[int]:
        """The text's tokens, with those that the tokenizer puts before and behind a text.

        most: a longer text is cut at its end, as in transformers; the tokens around it stay.
        """
        if most is not None:
            self._tokenizer.enable_truncation(most)
        try:
            tokens: list[int] = self._tokenizer.encode(text.encode("utf-8", "replace").decode("utf-8")).ids
        finally:
            self._tokenizer.no_truncation()
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

    def name(self, token: int) -> str:
        """The piece of text that a token stands for, as tokenizer.json has it; its number where it has none."""
        piece: str | None = self._tokenizer.id_to_token(token)
        return str(token) if piece is None else piece


def with_beginning(plain: list[int], special: list[int]) -> list[int]:
    """`plain` with the tokens that `special` has before it, unless `plain` begins with them. Nothing is added after it.

    plain, special: the tokens of one text without and with special tokens.
    """
    for start in range(len(special) - len(plain) + 1 if plain else 0):
        if special[start : start + len(plain)] == plain:
            return plain if plain[:start] == special[:start] else special[:start] + plain
    return special


class TextStream:
    """Text from one token after another. A character of several tokens comes in one piece.

    Each piece is decoded together with the tokens before it, at first the end of the prompt: some tokenizers drop the
    space at the beginning of a text, which must be kept when a prompt is continued.
    """

    CONTEXT = 8
    """How many tokens of the prompt are decoded with the first piece."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens = list(prompt[-self.CONTEXT :])
        self._start = 0
        self._given = len(self._tokens)

    def add(self, token: int) -> str:
        """The text that this token completes; "" while a character is incomplete."""
        self._tokens.append(token)
        before = self._tokenizer.decode(self._tokens[self._start : self._given])
        text = self._tokenizer.decode(self._tokens[self._start :])
        if text.endswith("\ufffd") or len(text) <= len(before):
            return ""
        self._start, self._given = self._given, len(self._tokens)
        return text[len(before) :]
