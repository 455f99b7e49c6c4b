"""Tokenizer files are changed only as far as onnxruntime-genai's tokenizer needs it."""

from __future__ import annotations

import json

import pytest

from drupe.api import ModelError
from drupe_onnxruntime.genai.tokenizer_files import readable

BPE = json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}).encode()


def mended(config: dict[str, object], vocabulary: bytes = BPE, **files: bytes) -> dict[str, object]:
    """tokenizer_config.json after the change; {} if it was not changed."""
    named = {name.replace("__", "."): content for name, content in files.items()}
    given = {"tokenizer.json": vocabulary, "tokenizer_config.json": json.dumps(config).encode(), **named}
    result: dict[str, object] = json.loads(readable(given).get("tokenizer_config.json", b"{}"))
    return result


@pytest.mark.parametrize("name", ["Qwen2Tokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast", "GPT2Tokenizer"])
def test_a_tokenizer_that_the_runtime_can_read_is_not_changed(name: str) -> None:
    tokens = dict.fromkeys(("bos_token", "eos_token"), "a")
    assert mended({"tokenizer_class": name, "chat_template": "x", "extra": [1], **tokens}) == {}


@pytest.mark.parametrize("name", ["TokenizersBackend", "CohereTokenizerFast", None])
def test_an_unknown_class_becomes_the_generic_one_and_other_keys_stay(name: str | None) -> None:
    config = {"tokenizer_class": name, "eos_token": "</s>", "added_tokens_decoder": {"0": {"content": "a"}}}
    assert mended(config) == {**config, "tokenizer_class": "PreTrainedTokenizerFast"}


def test_a_missing_class_and_a_missing_file_are_added() -> None:
    assert mended({"eos_token": "</s>"})["tokenizer_class"] == "PreTrainedTokenizerFast"
    made = readable({"tokenizer.json": BPE})["tokenizer_config.json"]
    assert isinstance(made, bytes)
    assert json.loads(made) == {"tokenizer_class": "PreTrainedTokenizerFast"}


def test_keys_that_are_null_count_as_absent() -> None:
    config = {"tokenizer_class": "Qwen2Tokenizer", "chat_template": None, "model_max_length": None, "bos_token": None}
    assert mended(config) == {
        "tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|endoftext|>",
    }  # fmt: skip


def test_special_tokens_named_only_in_the_map_are_added_to_the_configuration() -> None:
    special = json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "other": 1}).encode()
    config = {"tokenizer_class": "Qwen2Tokenizer", "bos_token": "a"}
    assert mended(config, special_tokens_map__json=special) == {**config, "bos_token": "<s>", "eos_token": "</s>"}
    config["added_tokens_decoder"] = {}  # with it, transformers does not read the older file for what is named here
    assert mended(config, special_tokens_map__json=special)["bos_token"] == "a"


def test_a_vocabulary_in_another_layout_is_recognised() -> None:
    other = json.dumps({"model": {"vocab": [["a", 0.0]], "type": "Unigram"}}).encode()
    assert mended({"tokenizer_class": "T5Tokenizer"}, other) == {}


def test_the_class_of_a_tokenizer_that_the_runtime_does_not_read_stays() -> None:
    assert mended({"tokenizer_class": "BertTokenizer"}, b'{"model": {"type": "WordPiece"}}') == {}


def test_the_error_for_a_missing_tokenizer_json_names_a_cure() -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json") as caught:
        readable({})
    assert caught.value.cure is not None


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_configuration_that_is_not_a_json_object_is_an_error(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        readable({"tokenizer.json": BPE, "tokenizer_config.json": content})
