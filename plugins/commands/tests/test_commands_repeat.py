"""Repeating a run of a real model from its record gives the same bytes. Flags of evaluators measure its package."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_checkpoint

pytest.importorskip("onnxruntime")


def drupe(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "drupe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def digests(package: Path) -> dict[str, str]:
    """The SHA-256 of every file but the record, which holds times."""
    files = (path for path in package.rglob("*") if path.is_file() and path.name != "drupe.json")
    return {path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", "qwen3")


@pytest.mark.parametrize(
    "options",
    [
        ("--quality", "fast", "--block-size", "32"),
        ("--threads", "1", "--tokens", "40"),
        ("--quality", "best", "--calibration-sequences", "2", "--calibration-length", "64", "--tokens", "40"),
    ],
    ids=lambda options: " ".join(options[:2]),
)
def test_running_the_plan_in_a_package_makes_the_same_bytes(
    checkpoint: Path, tmp_path: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again, saved = tmp_path / "first", tmp_path / "again", tmp_path / "plan.json"
    monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / "cache"))
    made = drupe("optimize", checkpoint, "-o", first, "--save-plan", saved, *options)
    assert made.returncode == 0, made.stderr
    monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / "another cache"))
    repeated = drupe("run", first / "drupe.json", "-o", again)
    assert repeated.returncode == 0, repeated.stderr
    assert digests(first) == digests(again) and len(digests(first)) > 3
    plans = [json.loads((package / "drupe.json").read_text())["plan"] for package in (first, again)]
    assert plans[0] == plans[1] == json.loads(saved.read_text())


def test_a_changed_source_is_refused_before_the_work(checkpoint: Path, tmp_path: Path) -> None:
    copy, package = tmp_path / "copy", tmp_path / "package"
    shutil.copytree(checkpoint, copy)
    assert drupe("optimize", copy, "-o", package, "--quality", "fast", "--no-verify").returncode == 0
    weights = (copy / "model.safetensors").read_bytes()
    middle = len(weights) // 2  # the fingerprint of a large file covers some of its bytes, also those in the middle
    (copy / "model.safetensors").write_bytes(weights[:middle] + weights[middle:][::-1])
    refused = drupe("run", package / "drupe.json", "-o", tmp_path / "again")
    assert refused.returncode == 4 and "has changed since" in refused.stderr
    assert not (tmp_path / "again").exists()


def test_a_workflow_with_settings_makes_the_same_bytes_as_the_command_line(checkpoint: Path, tmp_path: Path) -> None:
    typed, written = tmp_path / "typed", tmp_path / "written"
    flow = tmp_path / "flow.yaml"
    flow.write_text(
        f"model: {checkpoint}\ntarget: {{provider: cpu, precision: int4}}\noptions: {{quality: fast}}\n"
        f"settings: {{quantize-weights: {{block_size: 64}}}}\nverify: false\noutput: {written}\n"
    )
    done = drupe("run", flow)
    assert done.returncode == 0, done.stderr
    asked = ("--set", "quantize-weights.block_size=64", "--quality", "fast", "--no-verify", "--provider", "cpu")
    assert drupe("optimize", checkpoint, "-o", typed, *asked).returncode == 0
    assert digests(typed) == digests(written)


def test_evaluator_flags_measure_quality_and_throughput(checkpoint: Path, tmp_path: Path) -> None:
    package, text = tmp_path / "package", tmp_path / "text.txt"
    text.write_text("def parse(text):\n    return text.split()\n" * 40)
    assert drupe("optimize", checkpoint, "-o", package, "--quality", "fast", "--no-verify").returncode == 0
    asked = ("evaluate", package, "--against", checkpoint, "--evaluation-data", text, "--tokens", 48, "--length", 24)
    done = drupe(*asked, "--seed", 3, "--json")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["kl_divergence"] > 0 and measured["perplexity"] > 1
    settings = measured["settings"]["quality"]
    assert (settings["tokens"], settings["length"], settings["seed"]) == (48, 24, 3)
    assert settings["evaluation_fingerprint"] == hashlib.sha256(text.read_bytes()).hexdigest()
    failed = drupe(*asked, "--max-kl", 1e-9)
    assert failed.returncode == 7 and "above the limit" in failed.stderr and "kl divergence" in failed.stdout
    small = ("--set", "prompt_lengths=16", "--set", "new_tokens=4", "--set", "repeats=2")
    fast = drupe("evaluate", package, "--evaluator", "quality", "--evaluator", "throughput", "--tokens", 40, *small)
    assert fast.returncode == 0, fast.stderr
    assert "decode rate" in fast.stdout and "perplexity" in fast.stdout
    alone = drupe("evaluate", package, "--max-kl", 1)
    assert alone.returncode == 2 and "--against MODEL" in alone.stderr
