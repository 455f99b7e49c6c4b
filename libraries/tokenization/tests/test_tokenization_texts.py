"""Texts to tokens and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tokenizer_text

from drupe.api import ModelError
from drupe_tokenization import TextStream, Tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text(tokenizer_text(), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("text", ["plain words", "é∑日😀 mixed é", "  spaces \n\n", "👩‍👩‍👧"])
def test_streaming_tokens_gives_the_same_text_as_decoding_them_at_once(folder: Path, text: str) -> None:
    tokenizer = Tokenizer(folder)
    stream = TextStream(tokenizer)
    pieces = [stream.add(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_continuation_keeps_its_leading_space(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models

    fast = Fast(models.BPE({"\u2581the": 0, "\u2581cat": 1, "\u2581sat": 2}, []))
    fast.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    fast.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.decode([1]) == "cat"
    stream = TextStream(tokenizer, [0])
    assert [stream.add(1), stream.add(2)] == [" cat", " sat"]


def test_the_beginning_of_sequence_is_put_before_a_text_once(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    assert tokenizer.encode("def")[0] == 0
    assert tokenizer.encode("<|bos|>def") == tokenizer.encode("def")


def test_lone_surrogates_from_a_terminal_can_be_encoded(folder: Path) -> None:
    assert Tokenizer(folder).encode("a\udcffb") == Tokenizer(folder).encode("a?b")


def test_a_tokenizer_that_cannot_be_read_is_an_error(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        Tokenizer(folder)
