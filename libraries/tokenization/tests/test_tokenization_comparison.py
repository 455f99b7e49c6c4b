"""Another reader's tokens and texts are compared with those of tokenizers, here or in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import SPECIAL, tokenizer_text
from tokenizers import Tokenizer

from drupe.api import ModelError, replace
from drupe_tokenization import Comparison, Difference, Reading, Reference, ReferenceProcess, awkward_texts

TEXTS = ["the cat", "é", f"a{SPECIAL[0]}b", ""]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text(tokenizer_text(), encoding="utf-8")
    return tmp_path / "tokenizer.json"


@pytest.fixture
def reference(file: Path) -> Reference:
    return Reference(Tokenizer.from_file(str(file)), TEXTS)


def changed(reading: Reading, key: str, place: int, value: Any) -> Reading:
    """A reading that differs in one text."""
    values = list(getattr(reading, key))
    values[place] = value
    return replace(reading, **{key: values})


def test_the_same_reading_differs_nowhere(reference: Reference) -> None:
    assert reference.compared(reference.reading) == Comparison(4)
    assert [len(tokens) > 0 for tokens in reference.reading.tokens] == [True, True, True, False]


def test_other_tokens_are_counted_and_shown_as_pieces(reference: Reference) -> None:
    other = changed(changed(reference.reading, "tokens", 0, [0, -1]), "tokens", 1, [1, 10**6])
    found = reference.compared(other)
    assert (found.encoded, found.decoded) == (2, 0)
    assert found.first_encoded is not None
    assert (found.first_encoded.text, found.first_encoded.found) == ("the cat", [SPECIAL[0], "-1"])


def test_texts_are_compared_where_the_tokens_agree_and_none_is_special(reference: Reference) -> None:
    decoded = list(reference.reading.decoded)
    other = replace(reference.reading, decoded=[f" {decoded[0]}", "?", "?", decoded[3]])
    found = reference.compared(other)
    assert (found.decoded, found.first_decoded) == (1, Difference("é", "aé", "?"))
    assert reference.compared(changed(other, "tokens", 1, [0])).decoded == 0


def test_other_tokens_of_the_text_itself_are_no_other_beginning(reference: Reference) -> None:
    *ahead, last = reference.reading.begun
    assert ahead
    assert reference.compared(replace(reference.reading, begun=[*ahead, last + 1])).begun is None


def test_another_beginning_is_found(reference: Reference) -> None:
    begun = list(reference.reading.begun)
    found = reference.compared(replace(reference.reading, begun=begun[1:])).begun
    assert found == Difference("a", [SPECIAL[0], "a"], ["a"])


def test_tokens_without_a_row_are_named_and_counted(file: Path) -> None:
    tokenizer = Tokenizer.from_file(str(file))
    size = tokenizer.get_vocab_size()
    found = Reference(tokenizer, [], size - 5).compared(None)
    assert found.beyond_count == 5
    assert found.beyond == [f"{tokenizer.id_to_token(token)} ({token})" for token in range(size - 5, size - 2)]


def test_a_reference_is_ready_before_the_other_reader_has_read(file: Path) -> None:
    tokenizer = CountsListing(Tokenizer.from_file(str(file)))
    reference = Reference(tokenizer, TEXTS, 1)
    assert tokenizer.listed == 1  # this takes long for a large vocabulary
    assert reference.compared(reference.reading).beyond_count > 1
    assert tokenizer.listed == 1


class CountsListing:
    """A tokenizer that counts how often its vocabulary is listed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.listed = 0

    def __getattr__(self, name: str) -> Any:
        self.listed += name == "get_vocab"
        return getattr(self._tokenizer, name)


def test_a_process_of_its_own_gives_the_same(file: Path, reference: Reference) -> None:
    other = changed(reference.reading, "tokens", 1, [0])
    with ReferenceProcess(file, TEXTS, None) as process:
        assert process.compared(other) == reference.compared(other)
    with ReferenceProcess(file, TEXTS, 1) as process:
        assert process.compared(None).beyond_count > 1


def test_a_file_that_tokenizers_cannot_read_is_an_error_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "None"}}')
    with (
        ReferenceProcess(tmp_path / "tokenizer.json", TEXTS, None) as process,
        pytest.raises(ModelError, match=r"tokenizer\.json cannot be read: \w+"),
    ):
        process.compared(None)


def test_the_awkward_texts_are_many_different_and_of_many_kinds() -> None:
    texts = awkward_texts()
    assert len(texts) == len(set(texts)) >= 400
    for kind in (
        "",
        "  a",
        "\t",
        "\r\n",
        "12345",
        "e\u0301",
        "\u1112\u1161\u11ab",
        "👩‍👩‍👧",
        "日",
        "\x1b",
        "</s>",
        "▁",
    ):
        assert any(kind == text or (kind and kind in text) for text in texts), kind
    assert max(map(len, texts)) >= 300
    assert not any("\0" in text for text in texts)


def test_the_tokenizers_own_tokens_stand_in_many_places() -> None:
    added = [{"content": f"<{number}>", "special": True} for number in range(100)] + [
        {"content": "<r>", "rstrip": True}
    ]
    own = set(awkward_texts(added)) - set(awkward_texts())
    assert {"<0>", "a <0> b", "<99>\n", "<r> Hello", " <r> "} <= own
    assert len(own) < 300
