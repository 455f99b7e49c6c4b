"""What the commands print is what is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_checkpoint


def program(*arguments: object) -> str:
    command = [sys.executable, "-c", "from drupe.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_default_plugin_is_in_use() -> None:
    rows = program("plugins").splitlines()
    assert len(rows) > 10
    assert all(row.rstrip().endswith("in use") for row in rows[1:])
    assert all(record["in_use"] and record["cure"] is None for record in json.loads(program("plugins", "--json")))


@pytest.mark.parametrize(("command", "name"), [("passes", "quantize-weights"), ("providers", "cpu")])
def test_a_list_names_what_can_be_shown_in_full(command: str, name: str) -> None:
    assert any(row.startswith(f"{name} ") for row in program(command).splitlines())
    assert program(command, name).startswith(f"{name}: ")
    assert any(name in record.values() for record in json.loads(program(command, "--json")))
    assert json.loads(program(command, name, "--json"))["name"] == name


def test_inspecting_says_what_a_checkpoint_and_its_package_are(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "qwen2", tie_word_embeddings=True)
    facts = json.loads(program("inspect", checkpoint, "--json"))
    assert facts["architecture"] == "Qwen2ForCausalLM" and facts["supported"] is True
    assert facts["parameters"] * 4 == facts["weight_bytes"] > 100_000
    program("optimize", checkpoint, "-o", tmp_path / "out", "--no-verify")
    facts = json.loads(program("inspect", tmp_path / "out", "--json"))
    assert facts["precision"] == "int4" and "4 bits" in facts["quantization"]
    assert facts["weight_bytes"] == sum(facts["bytes_by_type"].values())
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    refused = program("inspect", checkpoint)
    assert "supported            no\n" in refused and "pickles" in refused and "save_pretrained" in refused
