"""Text to measure on: read from a file, or the short one that lies here, and turned into tokens."""

from __future__ import annotations

from pathlib import Path

import tokenizers

from drupe.api import Model, ModelError, UsageError

SAMPLE = Path(__file__).with_name("sample.txt")
"""A few hundred words of prose, code and talk, for those who name no text."""
CHARACTERS = 64
"""More than a token has: enough characters are read for the tokens that are wanted, and not a whole corpus."""


class TextTokenizer:
    """The tokenizer.json of a package."""

    def __init__(self, model: Model) -> None:
        folder = model.location if model.location.is_dir() else model.location.parent
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError("there is no tokenizer.json, so no text can be measured", where=folder)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing more special
            raise ModelError(f"tokenizer.json cannot be read: {error}", where=path) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def beginning(self) -> list[int]:
        """The tokens that it puts before every text: the beginning of sequence, or nothing."""
        plain = self._tokenizer.encode("a", add_special_tokens=False).ids
        whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        return whole[: whole.index(plain[0])] if plain and plain[0] in whole else []

    def tokens(self, path: Path | None, count: int) -> list[int]:
        """The first `count` tokens of a text. Raises UsageError where it has not so many."""
        path = path or SAMPLE
        try:
            with path.open(encoding="utf-8-sig") as file:
                found = self._encode(file.read(count * CHARACTERS))
                if len(found) < count:
                    file.seek(0)
                    found = self._encode(file.read())
        except OSError as error:
            raise UsageError(f"the text cannot be read: {error.strerror or error}", where=path) from error
        except UnicodeDecodeError as error:
            raise UsageError(
                f"the text is not in UTF-8 (byte {error.start} of what was read)",
                where=path,
                cure="iconv -f latin1 -t utf-8 (or what encoding it is in) makes it so",
            ) from error
        if len(found) < count:
            raise UsageError(
                f"the text has {len(found)} tokens, and {count} are wanted",
                where="the text that drupe brings" if path == SAMPLE else path,
                cure="a longer text (--text FILE), or fewer tokens (--tokens)",
            )
        return found[:count]

    def prompt(self, path: Path | None, count: int) -> str:
        """The beginning of a text, of about `count` tokens."""
        text: str = self._tokenizer.decode(self.tokens(path, count), skip_special_tokens=True)
        return text

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return tokens
