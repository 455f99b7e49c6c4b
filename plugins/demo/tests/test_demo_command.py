"""`drupe demo`: plausible numbers, a table that fits a terminal, and the error if no runtime is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import drupe
from drupe.api import RuntimeMissing, registry


def run(*arguments: str) -> str:
    """The program's standard output on a terminal of 80 columns."""
    command = [sys.executable, "-m", "drupe", "demo", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False, env={**os.environ, "COLUMNS": "80"}
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_the_numbers_are_plausible_and_output_path_keeps_the_package(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_genai")
    kept = tmp_path / "kept"
    found = json.loads(run("--json", "--output-path", str(kept)))
    before, after = found["before"], found["after"]
    assert (before["precision"], after["precision"]) == ("fp32", "int4")
    assert after["bytes"] == sum(path.stat().st_size for path in kept.iterdir())
    assert before["bytes"] > 4 * after["bytes"]
    assert before["kl_divergence"] == 0 < after["kl_divergence"] < 0.1
    assert 0.8 < after["top1_agreement"] < before["top1_agreement"] == 1
    assert 5 < before["perplexity"] < 100
    assert after["perplexity"] == pytest.approx(before["perplexity"], rel=0.1)
    for side in (before, after):
        assert side["prefill_rate"] > side["decode_rate"] > 1
        assert side["sample"].startswith("def parse(")
        assert len(side["sample"]) > 30
    with drupe.open(kept) as session:
        assert session.generate("def parse(")


def test_the_table_fits_eighty_columns() -> None:
    pytest.importorskip("onnxruntime_genai")
    lines = run("--precision", "int8", "--quality", "fast").splitlines()
    assert max(map(len, lines)) <= 80
    named = [line.split("  ")[0] for line in lines]
    for name in ("size", "prefill", "decode", "KL divergence", "top-1 agreement", "perplexity"):
        assert named.count(name) == 1
    assert sum(line.startswith("  def parse(") for line in lines) == 2


def test_without_a_runtime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from drupe_demo.command import demo

    for entry in registry().runtimes:
        monkeypatch.setattr(entry.resolve(), "version", lambda self: None)
    monkeypatch.setattr(drupe, "optimize", lambda *arguments, **options: pytest.fail("something was converted"))
    with pytest.raises(RuntimeMissing, match="onnxruntime is not installed") as raised:
        demo()
    assert "pip install 'drupe[cpu]'" in str(raised.value)


def test_the_model_learns_from_the_rows_and_the_package_has_learned(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_genai")
    pytest.importorskip("peft")
    command = [sys.executable, "-m", "drupe", "demo", "finetune", "--json", "-o", str(tmp_path / "kept")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == 200
    assert found["losses"][-1] < 0.5 * found["losses"][0]
    assert found["after"]["perplexity"] < 0.5 * found["before"]["perplexity"]
    assert found["check"]["kl_divergence"] < 0.2
    assert (tmp_path / "kept" / "drupe.json").is_file()
