"""The table of transformers' tokenizer classes is that of the installed transformers, and a notice tells of each."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import checkout_tools
import pytest
from tokenizer_forms import tokenizer_files

from drupe_checkpoints.tokenizer.classes import class_of, table
from drupe_checkpoints.tokenizer.resolving import resolve
from drupe_checkpoints.tokenizer.settings import Settings

FORMS = ("bert", "gpt2", "llama2", "t5")
"""A form of tokenizer.json of each kind."""


@functools.cache
def generator() -> Any:
    return checkout_tools.tool("tokenizer_classes")


def test_the_table_is_that_of_the_installed_transformers() -> None:
    pytest.importorskip("transformers")
    assert generator().written(generator().table()) == generator().TABLE.read_text(encoding="utf-8")


def made(folder: Path, form: str, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    for file, content in tokenizer_files(form).items():
        (folder / file).write_bytes(content)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    (folder / "config.json").write_text("{}")
    return folder


TEXTS = ("Hello  World", " a", "caf\u00e9 cafe\u0301 \ufb01", "12 345", "a\n b", "don't X", "\u4f60\u597d")


@pytest.mark.parametrize("form", FORMS)
def test_a_class_that_makes_other_tokens_is_said(tmp_path: Path, form: str) -> None:
    """Other vocabularies than a class is for are left out where transformers cannot load them."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    unsaid = []
    for name in table().classes:
        folder = made(tmp_path / name, form, name)
        try:
            theirs = transformers.AutoTokenizer.from_pretrained(folder)
            wanted = [theirs(text, add_special_tokens=False).input_ids for text in TEXTS]
        except Exception:  # transformers raises many kinds
            continue
        resolved = resolve(folder, {})
        content = resolved.content if isinstance(resolved.content, bytes) else resolved.content.read_bytes()
        ours = Tokenizer.from_buffer(content)
        same = [ours.encode(text, add_special_tokens=False).ids for text in TEXTS] == wanted
        if not same and not any(f"the class {name} has its own" in notice.what for notice in resolved.notices):
            unsaid.append(name)
    assert not unsaid


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "phi3", "gemma2", "bert", "mistral", "jamba", ""])
@pytest.mark.parametrize("name", [None, "LlamaTokenizerFast", "PreTrainedTokenizerFast", "Qwen2Tokenizer", "NoSuch"])
def test_the_class_is_the_one_that_auto_tokenizer_takes(tmp_path: Path, model_type: str, name: str | None) -> None:
    transformers = pytest.importorskip("transformers")
    folder = made(tmp_path, "gpt2", name or "")
    config = {"tokenizer_class": name} if name else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    model = {"model_type": model_type} if model_type else {}
    (folder / "config.json").write_text(json.dumps(model))
    found = class_of(Settings.read(folder, model), json.loads((folder / "tokenizer.json").read_bytes()))
    try:
        theirs = type(transformers.AutoTokenizer.from_pretrained(folder)).__name__
    except Exception as error:  # transformers raises many kinds
        pytest.skip(f"transformers does not load it: {error}")
    assert found == theirs
