"""tokenizer.json is cut at its vocabulary and merges; another layout is parsed, with the same result."""

from __future__ import annotations

import json
from typing import Any

import pytest

from drupe.api import ModelError
from drupe_tokenization import TokenizerDocument

VOCABULARY = {"a": 0, '"vocab": {': 1, '], "merges": [': 2, "merges": 3, "vocab": 4, "]}}": 5, "\n": 6, "é\u2581": 7}
TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [{"id": 0, "content": '"vocab": {"merges": ['}, {"id": 9}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Sequence", "normalizers": []}]},
    "pre_tokenizer": None,
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "unk_token": None, "vocab": VOCABULARY, "merges": ["a ]}}", 'a "merges":[']},
}
OTHER_ORDER = {**TOKENIZER, "model": {"merges": [["a", "]}}"]], "vocab": VOCABULARY, "type": "BPE"}}
UNIGRAM = {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.5]], "byte_fallback": False}}


@pytest.mark.parametrize("tokenizer", [TOKENIZER, OTHER_ORDER, UNIGRAM, {"model": {"vocab": {}}}])
@pytest.mark.parametrize("indent", [None, 2])
def test_what_is_written_is_what_was_read(tokenizer: dict[str, Any], indent: int | None) -> None:
    read = TokenizerDocument.read(json.dumps(tokenizer, indent=indent, ensure_ascii=indent is None).encode())
    assert json.loads(read.write()) == tokenizer
    assert json.loads(read.vocabulary) == tokenizer["model"]["vocab"]
    assert "vocab" not in read.model
    assert read.kind == tokenizer["model"].get("type", "BPE")


def test_settings_can_be_changed_and_steps_inside_sequences_are_listed() -> None:
    read = TokenizerDocument.read(json.dumps(TOKENIZER).encode())
    assert [step["type"] for step in read.steps("normalizer")] == ["NFC"]
    assert read.steps("pre_tokenizer") == []
    assert [token["content"] for token in read.added_tokens] == ['"vocab": {"merges": [']
    assert json.loads(read.changed(normalizer=None).write()) == {**TOKENIZER, "normalizer": None}


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"model": 1}', b"\xff"])
def test_what_is_not_a_tokenizer_is_an_error(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json is not"):
        TokenizerDocument.read(content)
