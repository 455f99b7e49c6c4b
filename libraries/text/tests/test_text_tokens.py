"""Tokens of a text: in order, drawn with a seed, or in sequences."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from tokenizers import Tokenizer

from drupe.api import ModelError, UsageError
from drupe_text import CalibrationConfig, Text, TextTokenizer
from drupe_text.tokens import _cut

TEXT = "".join(f"line {at} goes on\n" for at in range(5000))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.json").write_text(tiny.tokenizer_text(), encoding="utf-8")
    (folder / "text.txt").write_text(TEXT)
    (folder / "short.txt").write_text("words")
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> TextTokenizer:
    return TextTokenizer(folder)


@pytest.fixture(scope="module")
def text(folder: Path) -> Text:
    return Text(str(folder / "text.txt"))


def test_without_a_seed_the_first_tokens_of_the_text_are_taken(
    folder: Path, tokenizer: TextTokenizer, text: Text
) -> None:
    whole = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
    assert tokenizer.tokens(text, 300) == whole[:300]
    assert tokenizer.tokens(text, len(whole)) == whole
    assert tokenizer.sequences(text, 2, 11) == [[tiny.BOS, *whole[:10]], [tiny.BOS, *whole[10:20]]]


def test_a_seed_draws_the_same_places_each_time(tokenizer: TextTokenizer, text: Text) -> None:
    drawn = tokenizer.sequences(text, 3, 40, seed=1)
    assert drawn == tokenizer.sequences(text, 3, 40, seed=1)
    assert drawn != tokenizer.sequences(text, 3, 40, seed=2)
    assert [len(each) for each in drawn] == [40] * 3
    assert len({tuple(each) for each in drawn}) == 3


def test_a_seed_changes_the_order_of_short_texts_too(folder: Path, tokenizer: TextTokenizer) -> None:
    short = folder / "few.txt"
    short.write_text("".join(f"line {at}\n" for at in range(64)))
    text = Text(str(short))
    assert len({tuple(tokenizer.tokens(text, 100, seed)) for seed in (None, 1, 2, 3)}) == 4


def test_sequences_drawn_with_a_seed_come_from_different_pieces(tokenizer: TextTokenizer, text: Text) -> None:
    pieces = [tokenizer._encode(piece) for piece in _cut(TEXT, 8192)]
    drawn = tokenizer.sequences(text, len(pieces), 40, seed=1)
    starts = [next(at for at, piece in enumerate(pieces) if piece[:39] == each[1:]) for each in drawn]
    assert sorted(starts) == [at for at, piece in enumerate(pieces) if len(piece) >= 39][: len(starts)]
    more = tokenizer.sequences(text, 2 * len(pieces), 40, seed=1)
    assert more[: len(pieces)] == drawn
    assert len({tuple(each) for each in more}) == len(more)


def test_drawing_everything_with_a_seed_gives_every_token_once(tokenizer: TextTokenizer, text: Text) -> None:
    whole = [token for piece in _cut(TEXT, 8192) for token in tokenizer._encode(piece)]
    drawn = tokenizer.sequences(text, 10_000_000, 40, seed=5, least=1)
    assert sorted(token for each in drawn for token in each[1:]) == sorted(whole)
    with pytest.raises(UsageError, match="the text has") as told:
        tokenizer.sequences(text, 10_000_000, 40, seed=5)
    assert int(told.value.what.split()[3]) == len(whole)
    assert sorted(tokenizer.tokens(text, len(whole), seed=5)) == sorted(whole)


def test_the_error_for_a_short_text_names_both_numbers_of_tokens(folder: Path, tokenizer: TextTokenizer) -> None:
    short = Text(str(folder / "short.txt"), "calibration")
    (count,) = {len(tokenizer._encode("words"))}
    with pytest.raises(UsageError, match=f"the text has {count} tokens, but 200 are needed") as told:
        CalibrationConfig(
            calibration_data=short.reference, calibration_sequences=8, calibration_length=26
        ).calibration_tokens(tokenizer)
    assert told.value.where == short.reference
    assert "--calibration-data" in (told.value.cure or "")


def test_pieces_end_at_line_ends_if_possible() -> None:
    assert list(_cut("ab\ncdefghij\n\nk", 4)) == ["ab\n", "cdef", "ghij", "\n\nk"]
    assert list(_cut("a\nb\nc\nd", 5)) == ["a\nb\n", "c\nd"]


def test_a_missing_or_broken_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        TextTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        TextTokenizer(tmp_path)
