"""Reading a checkpoint: its configuration in both dialects, description, fingerprint, and the files for a package."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from drupe.api import Context, Model, ModelError, Target
from drupe_checkpoints import Checkpoint, open_checkpoint
from drupe_checkpoints.kind import HfKind
from drupe_onnx import Capabilities

CONFIG = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "eos_token_id": 7,
    "bos_token_id": None,
    "torch_dtype": "bfloat16",
}


def safetensors(path: Path, **shapes: list[int]) -> None:
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2
        for length in shape:
            size *= length
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    safetensors(folder / "model.safetensors", one=[4, 8], two=[3])
    return folder


def opened(folder: Path, **changed: Any) -> Checkpoint:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changed}))
    return open_checkpoint(folder)


def test_the_error_for_a_missing_key_names_key_and_file(folder: Path) -> None:
    config = open_checkpoint(folder).config
    with pytest.raises(ModelError, match=r"config\.json lacks the key 'intermediate_size'") as caught:
        config.require("intermediate_size")
    assert caught.value.where == str(folder / "config.json")
    with pytest.raises(ModelError, match="lacks the key 'bos_token_id'"):
        config.require("bos_token_id")  # null counts as missing


@pytest.mark.parametrize("wrong", ["64", 64.5, -1, True, [64], 10**19, 10**400])
def test_the_error_for_a_value_of_the_wrong_type_shows_it(folder: Path, wrong: Any) -> None:
    with pytest.raises(ModelError, match="hidden_size = "):
        opened(folder, hidden_size=wrong).config.integer("hidden_size")


def test_rope_parameters_are_the_same_in_both_dialects(folder: Path) -> None:
    old = opened(folder, rope_theta=1e6, rope_scaling={"type": "linear", "factor": 2.0}).config.rope()
    new = opened(folder, rope_parameters={"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0}).config.rope()
    assert {**old} == {**new}
    plain = opened(folder, rope_scaling=None).config.rope()
    assert (plain["rope_type"], plain["rope_theta"]) == ("default", 10000.0)


def test_rope_parameters_by_layer_type_are_read_if_they_are_equal_and_refused_otherwise(folder: Path) -> None:
    one = {"rope_type": "default", "rope_theta": 1e6}
    types = ["full_attention", "sliding_attention", "full_attention"]
    nested = {"full_attention": one, "sliding_attention": one}
    assert opened(folder, layer_types=types, rope_parameters=nested).config.rope()["rope_theta"] == 1e6
    nested = {"full_attention": one, "sliding_attention": {**one, "rope_theta": 1e4}}
    with pytest.raises(ModelError, match="differ between layer types"):
        opened(folder, layer_types=types, rope_parameters=nested).config.rope()


def test_generation_config_overrides_the_tokens_of_config(folder: Path) -> None:
    assert open_checkpoint(folder).tokens("eos_token_id") == (7,)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.tokens("eos_token_id") == (7, 9)
    assert checkpoint.tokens("bos_token_id") == ()


def test_describe_gives_architecture_and_sizes_without_reading_weights(folder: Path) -> None:
    assert HfKind().describe(Model("hf", folder)) == {
        "architecture": "Qwen2ForCausalLM",
        "model type": "qwen2",
        "layers": 3,
        "hidden size": 64,
        "attention heads": 4,
        "key and value heads": 2,
        "head size": 16,
        "vocabulary": 100,
        "context length": 512,
        "tied embeddings": True,
        "parameters": 35,
        "weight bytes": 70,
        "element types": ["bfloat16"],
    }


def test_describe_knows_the_keys_of_sizes_that_other_families_have(folder: Path) -> None:
    config = {"model_type": "gpt2", "n_layer": 3, "n_embd": 64, "n_head": 4, "n_positions": 128, "vocab_size": 100}
    (folder / "config.json").write_text(json.dumps(config))
    facts = HfKind().describe(Model("hf", folder))
    assert (facts["layers"], facts["hidden size"], facts["context length"]) == (3, 64, 128)
    assert (facts["attention heads"], facts["key and value heads"], facts["head size"]) == (4, 4, 16)


def test_describe_works_with_broken_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 20)
    facts = HfKind().describe(Model("hf", folder))
    assert facts["layers"] == 3 and "parameters" not in facts


def test_describe_works_with_invalid_sizes(folder: Path) -> None:
    opened(folder, num_attention_heads="four", hidden_size=[1])
    facts = HfKind().describe(Model("hf", folder))
    assert facts["attention heads"] == "four" and "head size" not in facts


def test_the_size_is_that_of_the_files(folder: Path) -> None:
    (folder / "optimizer.pt").write_bytes(b"not counted")
    names = ("config.json", "tokenizer.json", "model.safetensors")
    assert HfKind().size(Model("hf", folder)) == sum((folder / name).stat().st_size for name in names)


@pytest.mark.parametrize("thorough", [True, False])
def test_the_fingerprint_changes_with_what_decides_the_result(
    folder: Path, thorough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / "cache"))
    kind, model = HfKind(), Model("hf", folder)
    seen = [kind.fingerprint(model, thorough)]

    (folder / ".cache").mkdir()
    (folder / ".cache" / "noise").touch()
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert kind.fingerprint(model, thorough) == seen[0]  # hidden files and times do not change it

    (folder / "config.json").write_text(json.dumps({**CONFIG, "eos_token_id": 8}))
    seen.append(kind.fingerprint(model, thorough))
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    seen.append(kind.fingerprint(model, thorough))
    safetensors(folder / "model.safetensors", one=[8, 4], two=[3])
    seen.append(kind.fingerprint(model, thorough))
    assert len(set(seen)) == 4


def test_save_copies_the_checkpoint_and_follows_links(folder: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)
    (folder / "LICENSE").touch()
    (folder / "checkpoint-500").mkdir()
    (folder / "checkpoint-500" / "optimizer.pt").touch()
    out = tmp_path / "out"
    out.mkdir()
    target = Target("none", "", Capabilities("", {}, ("float32",)))
    digests = HfKind().save(Model("hf", folder), out, Context(target, tmp_path))
    assert (out / "LICENSE").is_file()
    assert digests["model.safetensors"] == hashlib.sha256(blob.read_bytes()).hexdigest()
    assert sorted(path.name for path in out.iterdir()) == [
        "LICENSE", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert not (out / "model.safetensors").is_symlink()
    assert (out / "model.safetensors").read_bytes() == blob.read_bytes()


@pytest.mark.parametrize("thorough", [True, False])
def test_shards_in_subfolders_belong_to_the_checkpoint(folder: Path, thorough: bool, tmp_path: Path) -> None:
    (folder / "part").mkdir()
    (folder / "model.safetensors").rename(folder / "part" / "one.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "part/one.safetensors"}}))
    kind, model = HfKind(), Model("hf", folder)
    before = kind.fingerprint(model, thorough)
    target = Target("none", "", Capabilities("", {}, ("float32",)))
    assert "part/one.safetensors" in kind.save(model, tmp_path / "out", Context(target, tmp_path))
    with (folder / "part" / "one.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    assert kind.fingerprint(model, thorough) != before


def test_package_files_are_tokenizer_template_licence_and_generation_config(folder: Path) -> None:
    for name in ("tokenizer_config.json", "chat_template.jinja", "LICENSE", "generation_config.json", "README.md"):
        (folder / name).write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").touch()
    assert set(open_checkpoint(folder).package_files()) == {
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE", "generation_config.json",
        "additional_chat_templates/tools.jinja",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "LICENSE", "notes.txt"])
def test_the_error_for_a_file_without_read_permission_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever reads it first. The test replaces `open`, because root may read every file."""
    (folder / name).touch()

    def forbidding(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return path_open(path, *arguments, **named)

    path_open = Path.open
    monkeypatch.setattr(Path, "open", forbidding)
    monkeypatch.setattr(Path, "read_text", lambda path, **_: path.open("r").read())
    with pytest.raises(ModelError, match="Permission denied") as caught:
        open_checkpoint(folder).package_files()
        HfKind().fingerprint(Model("hf", folder))
    assert caught.value.where == str(folder / name) and caught.value.cure


def test_a_checkpoint_without_a_tokenizer_is_an_error(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json") as caught:
        open_checkpoint(folder).package_files()
    assert "copy" in str(caught.value.cure)
