"""Limits for imports and memory. They are ratios within one run; times are measured in bench/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_checkpoint

import drupe

HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "onnxruntime_genai", "torch", "transformers", "numba", "rich")

SIZES = {"small": "420kB", "large": "500kB"}
"""Sizes for a model of experts: the least that it can have, about, and one with room."""
MEASURE = """
import sys, drupe
print(drupe.optimize(sys.argv[1], sys.argv[2], verify=False, quality="fast").peak_bytes)
"""


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom drupe_commands.program import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_converting_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    script = (
        "import sys, drupe\n"
        f"drupe.optimize({str(checkpoint)!r}, {str(tmp_path / 'out')!r}, verify=False)\n"
        "print([name for name in ('torch', 'transformers', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell a process's peak memory this way")
def test_peak_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    shape = {"hidden_size": 1024, "intermediate_size": 4096, "dtype": "bfloat16", "num_attention_heads": 16,
             "num_key_value_heads": 16, "vocab_size": 4096}  # fmt: skip
    peaks, sizes = [], []
    for layers in (1, 8):
        checkpoint = make_checkpoint(tmp_path / f"{layers}", **shape, num_hidden_layers=layers)
        sizes.append((checkpoint / "model.safetensors").stat().st_size)
        command = [sys.executable, "-c", MEASURE, checkpoint, tmp_path / f"out-{layers}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert sizes[1] > 5 * sizes[0]
    assert peaks[1] < 1.15 * peaks[0]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell a process's peak memory this way")
def test_peak_memory_does_not_grow_with_the_number_of_experts(tmp_path: Path) -> None:
    shape = {"hidden_size": 512, "intermediate_size": 512, "dtype": "bfloat16", "num_hidden_layers": 1}
    peaks, sizes = [], []
    for experts in (4, 64):
        checkpoint = make_checkpoint(tmp_path / f"{experts}", "mixtral", **shape, num_local_experts=experts)
        sizes.append((checkpoint / "model.safetensors").stat().st_size)
        command = [sys.executable, "-c", MEASURE, checkpoint, tmp_path / f"out-{experts}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert sizes[1] > 5 * sizes[0]
    assert peaks[1] < 1.15 * peaks[0]


def test_a_size_is_kept_and_used_where_most_weights_are_experts(tmp_path: Path) -> None:
    settings = {"num_local_experts": 8, "vocab_size": 2048}
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "mixtral", **settings)
    smallest, room = (_graph_and_weights(checkpoint, tmp_path / name, size) for name, size in SIZES.items())
    assert smallest < 420_000
    assert 0.93 * 500_000 < room <= 500_000


def _graph_and_weights(checkpoint: Path, out: Path, size: str) -> int:
    drupe.optimize(checkpoint, out, target_size=size, verify=False)
    return sum((out / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))
