"""The comparison that closes `optimize`: what it records, what it refuses, and what it leaves alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import drupe
from drupe.api import CheckFailed, UsageError

pytest.importorskip("onnxruntime_genai")

Package = Callable[[Path, str], Path]


def record(package: Path) -> dict[str, Any]:
    """What a package says of its check."""
    check: dict[str, Any] = json.loads((package / "drupe.json").read_text(encoding="utf-8"))["check"]
    return check


def test_a_package_tells_how_it_compares_with_its_source(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    outcome = drupe.optimize(checkpoint, tmp_path / "out", precision="int8", evaluation_data=text)
    measured = drupe.evaluate(tmp_path / "out", checkpoint, evaluation_data=text)
    assert outcome.check.metrics == {metric.name: pytest.approx(metric.value, rel=1e-2) for metric in measured}
    assert outcome.check.not_compared is None
    written = record(tmp_path / "out")
    assert written["metrics"] == outcome.check.metrics
    assert written["settings"]["tokens"] == 256
    assert written["settings"]["evaluation_fingerprint"] == hashlib.sha256(text.read_bytes()).hexdigest()
    assert not [file for file in (tmp_path / "out").iterdir() if file.is_dir()]


def test_a_package_beyond_the_limit_is_not_published(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"KL divergence from the source is .* 1e-09 is the limit"):
        drupe.optimize(checkpoint, tmp_path / "out", max_kl=1e-9)
    assert list(tmp_path.iterdir()) == []


def test_bad_settings_are_told_before_any_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drupe.engine.run_steps", lambda job: pytest.fail("it went to work"))
    with pytest.raises(UsageError, match=r"no file or folder 'missing\.txt'"):
        drupe.optimize(checkpoint, tmp_path / "out", evaluation_data="missing.txt")
    with pytest.raises(UsageError, match=r"'quality' refuses max_kl = -1"):
        drupe.optimize(checkpoint, tmp_path / "out", max_kl=-1)
    with pytest.raises(UsageError, match=r"--max-kl means nothing"):
        drupe.optimize(checkpoint, tmp_path / "out", max_kl=1, verify=False)
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_is_wrongly_tied_is_caught(checkpoint: Path, package: Package, text: Path, tmp_path: Path) -> None:
    """The package of a checkpoint whose head was dropped for its embedding, against the checkpoint as it was."""
    shutil.copytree(checkpoint, tmp_path / "tied")
    config = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "tied" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    drop_head(tmp_path / "tied" / "model.safetensors")
    drupe.optimize(tmp_path / "tied", tmp_path / "out", precision="fp32", verify=False)
    with pytest.raises(CheckFailed, match="KL divergence"):
        drupe.evaluate(tmp_path / "out", checkpoint, evaluation_data=text, max_kl=1.0)


def drop_head(path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    del tensors["lm_head.weight"]
    save_file(tensors, path, {"format": "pt"})


def test_the_command_says_how_it_compares(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "drupe", "optimize", checkpoint, "-o", tmp_path / "out", "--max-kl", "3"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("compared with its source: ")]
    assert line.count(",") == 3
    assert "kl divergence" in line
