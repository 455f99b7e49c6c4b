"""Wrong input of a user: one message with its cure, an exit status that is not 0, and no output folder."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import edit_config, make_checkpoint

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("good") / "checkpoint", "qwen2", tie_word_embeddings=True)


def program(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from drupe_commands.program import main; main()", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=300
    )


def optimize(source: object, out: Path, *more: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return program("optimize", source, "-o", out, *more, **environment)


def read_weights(folder: Path) -> tuple[dict[str, Any], bytes]:
    content = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write_weights(folder: Path, header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data)


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def truncated(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 100)


def overlapping(folder: Path) -> None:
    header, data = read_weights(folder)
    names = sorted((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    first, second = (header[name]["data_offsets"] for name in names[:2])
    shift = second[0] - first[0]
    header[names[1]]["data_offsets"] = [second[0] - shift // 2, second[1] - shift // 2]
    write_weights(folder, header, data)


def lying(folder: Path) -> None:
    header, data = read_weights(folder)
    header["model.norm.weight"]["shape"] = [128]
    write_weights(folder, header, data)


def weights_are_a_folder(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


def header_of_nonsense(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 60) + b"{}")


def missing_shard(folder: Path) -> None:
    header, _ = read_weights(folder)
    names = [name for name in header if name != "__metadata__"]
    index = dict.fromkeys(names, "model-00001-of-00002.safetensors")
    (folder / WEIGHTS).unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def not_a_number(folder: Path) -> None:
    header, data = read_weights(folder)
    start = header["model.layers.1.mlp.up_proj.weight"]["data_offsets"][0]
    write_weights(folder, header, data[: start + 40] + struct.pack("<f", float("nan")) + data[start + 44 :])


def infinite(folder: Path) -> None:
    header, data = read_weights(folder)
    start = header["model.norm.weight"]["data_offsets"][0]
    write_weights(folder, header, data[:start] + struct.pack("<f", float("inf")) + data[start + 4 :])


def overflowing(folder: Path) -> None:
    """Finite weights whose products overflow."""
    header, data = read_weights(folder)
    start, stop = header["model.layers.1.mlp.down_proj.weight"]["data_offsets"]
    huge = struct.pack("<f", 3e38) * ((stop - start) // 4)
    write_weights(folder, header, data[:start] + huge + data[stop:])


def pickles_only(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def tokenizer_model_only(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"not a sentencepiece model")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def tokenizer_is_a_folder(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()


def wrong_shape(folder: Path) -> None:
    edit_config(folder, intermediate_size=128)


def missing_tensor(folder: Path) -> None:
    header, data = read_weights(folder)
    header["model.norm.veight"] = header.pop("model.norm.weight")
    write_weights(folder, header, data)


CASES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "an empty folder": (empty, ("config.json",)),
    "config.json is not JSON": (lambda f: (f / "config.json").write_text("{,}"), ("config.json", "JSON")),
    "config.json is a list": (lambda f: (f / "config.json").write_text("[]"), ("config.json",)),
    "config.json lacks a key": (lambda f: edit_config(f, "hidden_size"), ("hidden_size", "config.json")),
    "an unknown architecture": (
        lambda f: edit_config(f, model_type="qwen2_audio", architectures=["Qwen2AudioForConditionalGeneration"]),
        ("Qwen2Audio", "--families"),
    ),
    "a size that is no number": (lambda f: edit_config(f, hidden_size="wide"), ('hidden_size = "wide"', "config.json")),
    "fewer than no layers": (lambda f: edit_config(f, num_hidden_layers=-1), ("num_hidden_layers = -1",)),
    "heads that do not share": (lambda f: edit_config(f, num_key_value_heads=3), ("num_key_value_heads = 3",)),
    "an unknown rotary embedding": (
        lambda f: edit_config(f, rope_parameters=None, rope_scaling={"rope_type": "spiral"}),
        ("spiral", "linear"),
    ),
    "an unknown activation": (lambda f: edit_config(f, hidden_act="wiggle"), ("wiggle", "silu")),
    "generation_config.json is not JSON": (
        lambda f: (f / "generation_config.json").write_text("{,}"),
        ("generation_config.json is not JSON",),
    ),
    "tokenizer.json is not JSON": (lambda f: (f / "tokenizer.json").write_text("{,}"), ("tokenizer.json", "JSON")),
    "tokenizer.json is empty": (lambda f: (f / "tokenizer.json").write_text("{}"), ("tokenizer.json", "no model")),
    "tokenizer_config.json is not JSON": (
        lambda f: (f / "tokenizer_config.json").write_text("{,}"),
        ("tokenizer_config.json", "JSON"),
    ),
    "weights that are a folder": (weights_are_a_folder, (WEIGHTS, "irectory")),
    "a git-lfs pointer": (
        lambda f: (f / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"),
        ("git-lfs pointer", "git lfs pull"),
    ),
    "a web page": (lambda f: (f / WEIGHTS).write_text("<!DOCTYPE html><html></html>"), ("web page",)),
    "a truncated file": (truncated, (WEIGHTS, "cut short")),
    "overlapping tensors": (overlapping, (WEIGHTS,)),
    "a header that lies about a shape": (lying, ("model.norm.weight",)),
    "a header that is nonsense": (header_of_nonsense, (WEIGHTS,)),
    "a missing shard": (missing_shard, ("model-00001-of-00002.safetensors",)),
    "a weight that is not a number": (not_a_number, ("model.layers.1.mlp.up_proj.weight", "NaN")),
    "an infinite weight": (infinite, ("model.norm.weight", "Inf")),
    "weights in pickles only": (pickles_only, ("safetensors", "pickle")),
    "a tokenizer.model only": (tokenizer_model_only, ("tokenizer.model", "sentencepiece")),
    "no tokenizer": (no_tokenizer, ("tokenizer.json",)),
    "a tokenizer.json that is a folder": (tokenizer_is_a_folder, ("cannot read 'tokenizer.json'",)),
    "a tensor of the wrong shape": (wrong_shape, ("mlp", "128")),
    "a missing tensor": (missing_tensor, ("model.norm.weight",)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_checkpoint_is_refused(good: Path, tmp_path: Path, case: str) -> None:
    spoil, words = CASES[case]
    folder = Path(shutil.copytree(good, tmp_path / "checkpoint"))
    spoil(folder)
    done = optimize(folder, tmp_path / "out")
    _assert_clear(done, 3, tmp_path)
    for word in words:
        assert word in done.stderr


def _assert_clear(done: subprocess.CompletedProcess[str], status: int, folder: Path) -> None:
    assert done.returncode == status, done.stderr
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
    assert "  try: " in done.stderr
    assert [each.name for each in folder.iterdir() if "out" in each.name] == []


def test_a_missing_folder_is_one_error(tmp_path: Path) -> None:
    done = optimize(tmp_path / "nowhere", tmp_path / "out")
    _assert_clear(done, 3, tmp_path)
    assert "nowhere" in done.stderr


def test_the_error_for_a_hub_id_without_a_network_says_what_was_tried(tmp_path: Path) -> None:
    done = optimize(
        "someone/some-model", tmp_path / "out", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_DOWNLOAD_TIMEOUT="2"
    )
    _assert_clear(done, 3, tmp_path)
    assert "someone/some-model" in done.stderr and "folder" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--precision", "int3"), ("int3", "int4")),
        (("--provider", "cdua"), ("cdua", "cuda")),
        (("--provider", "dml", "--precision", "bf16"), ("bf16", "fp16")),
        (("--block-size", "48"), ("block_size = 48", "in: --block-size")),
        (("--quality", "finest"), ("unknown value 'finest' of --quality", "best")),
        (("--precision", "fp32", "--head-bits", "8"), ("--head-bits",)),
    ],
)
def test_a_wrong_option_is_refused(
    good: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = optimize(good, tmp_path / "out", *arguments)
    _assert_clear(done, 2, tmp_path)
    for word in words:
        assert word in done.stderr


def test_an_existing_output_is_refused(good: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "thesis").write_text("mine")
    done = optimize(good, tmp_path / "kept", "--force")
    _assert_clear(done, 5, tmp_path)
    assert (tmp_path / "kept" / "thesis").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a matter of POSIX systems")
def test_a_disk_that_fills_up_leaves_nothing(good: Path, tmp_path: Path) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)); "
    limited += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "from drupe_commands.program import main; main()"
    command = [sys.executable, "-B", "-c", limited, "optimize", good, "-o", tmp_path / "out", "--no-verify"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "DRUPE_CACHE": str(tmp_path / "c")}
    )
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_inspect_describes_a_folder_with_a_config_only(good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "config-only"
    folder.mkdir()
    shutil.copy(good / "config.json", folder)
    done = program("inspect", folder)
    assert done.returncode == optimize(folder, tmp_path / "out").returncode == 3, done.stderr
    assert "Qwen2ForCausalLM" in done.stdout and "no safetensors file" in done.stdout
    edit_config(folder, model_type="acme", architectures=["AcmeForCausalLM"])
    shown = program("inspect", folder, "--json").stdout
    assert json.loads(shown)["supported"] is False
    assert "'AcmeForCausalLM' (model_type acme) is not supported" in shown and "a plugin can bring" in shown


@pytest.mark.parametrize("option", ["--quality=best", "--max-kl=0.1"])
def test_the_error_for_nan_during_calibration_names_the_block(good: Path, tmp_path: Path, option: str) -> None:
    folder = tmp_path / "in"
    shutil.copytree(good, folder)
    overflowing(folder)
    done = optimize(folder, tmp_path / "out", option)
    assert done.returncode == 3, done.stderr
    assert "NaN or Inf" in done.stderr
    assert "decoder block 1" in done.stderr
    assert "try:" in done.stderr and not (tmp_path / "out").exists()
