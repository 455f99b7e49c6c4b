"""The comparison at the end of `optimize`: what it records, and which packages and settings it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import drupe
from drupe.api import CheckFailed, UsageError
from drupe_demo import MODEL
from drupe_eval_quality.quality import Quality

pytest.importorskip("onnxruntime_genai")

EMBEDDING = "model.embed_tokens.weight"


def record(package: Path) -> dict[str, Any]:
    """The record of a package's check."""
    check: dict[str, Any] = json.loads((package / "drupe.json").read_text(encoding="utf-8"))["check"]
    return check


def test_the_record_holds_the_comparison_with_the_source(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    outcome = drupe.optimize(checkpoint, tmp_path / "out", precision="int8", evaluation_data=text)
    measured = drupe.evaluate(tmp_path / "out", checkpoint, evaluation_data=text)
    assert outcome.check.metrics == {metric.name: pytest.approx(metric.value, rel=1e-2) for metric in measured}
    assert outcome.check.not_compared is None
    written = record(tmp_path / "out")
    assert written["metrics"] == outcome.check.metrics
    assert written["settings"]["tokens"] == 256
    assert written["settings"]["evaluation_fingerprint"] == hashlib.sha256(text.read_bytes()).hexdigest()
    assert not [file for file in (tmp_path / "out").iterdir() if file.is_dir()]


def test_a_package_above_max_kl_is_not_published(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"KL divergence from the source is .* above the limit of 1e-09") as raised:
        drupe.optimize(checkpoint, tmp_path / "out", precision="int8", max_kl=1e-9)
    assert "how close shows when the package is made" in str(raised.value.cure)
    assert list(tmp_path.iterdir()) == []


def test_invalid_settings_are_errors_before_any_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drupe.engine.run_passes", lambda run: pytest.fail("it went to work"))
    with pytest.raises(UsageError, match=r"no file or folder 'missing\.txt'"):
        drupe.optimize(checkpoint, tmp_path / "out", evaluation_data="missing.txt")
    with pytest.raises(UsageError, match=r"max_kl = -1: it must be above 0 and at most 100"):
        drupe.optimize(checkpoint, tmp_path / "out", precision="int8", max_kl=-1)
    with pytest.raises(UsageError, match=r"--max-kl has no effect with --no-verify"):
        drupe.optimize(checkpoint, tmp_path / "out", precision="int8", max_kl=1, verify=False)
    assert list(tmp_path.iterdir()) == []


def test_the_default_check_fails_a_shifted_head_and_passes_two_bits(tmp_path: Path) -> None:
    """A changed version of the demo's trained model is compared with the original."""
    untied = changed(tmp_path / "untied", lambda tensors: {"lm_head.weight": tensors[EMBEDDING].roll(1, 0)})
    with pytest.raises(CheckFailed, match=r"KL divergence from the source is \d"):
        drupe.evaluate(untied, MODEL, **Quality.verifying)
    coarse = changed(tmp_path / "coarse", lambda tensors: {name: two_bits(each) for name, each in tensors.items()})
    assert drupe.evaluate(coarse, MODEL, **Quality.verifying)[0].value > 0.3


def changed(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """The float32 package of the demo's model with changed or added tensors."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(MODEL, folder / "checkpoint")
    tensors = load_file(MODEL / "model.safetensors")
    added = change(tensors)
    save_file({**tensors, **added}, folder / "checkpoint" / "model.safetensors", {"format": "pt"})
    config = json.loads((MODEL / "config.json").read_text())
    config["tie_word_embeddings"] = "lm_head.weight" not in added
    (folder / "checkpoint" / "config.json").write_text(json.dumps(config))
    drupe.optimize(folder / "checkpoint", folder / "package", precision="fp32", verify=False)
    return folder / "package"


def two_bits(tensor: Any) -> Any:
    """A matrix rounded to 2 bits in blocks of 32; a vector is returned unchanged."""
    import torch

    from drupe_blockquant import Scheme, dequantize_rows, quantize_rows

    if tensor.ndim != 2:
        return tensor
    scheme = Scheme(bits=2, block_size=32, symmetric=False, method="search")
    held = quantize_rows(tensor.float().numpy(), scheme, np.float32)
    return torch.from_numpy(dequantize_rows(held, scheme, k=tensor.shape[1])).to(tensor.dtype).contiguous()


def test_the_command_prints_the_comparison(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "drupe", "optimize", checkpoint, "-o", tmp_path / "out", "--max-kl", "3"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("compared with its source: ")]
    assert line.count(",") == 3
    assert "kl divergence" in line
