"""The command's own errors, before any model is looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from drupe.api import Capabilities, Estimate, Model, Plan, Preview, Target


def said(*arguments: str) -> str:
    """What the program says on stderr, having failed."""
    done = subprocess.run([sys.executable, "-m", "drupe", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode not in (0, 70), done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("optimize", "-o", "out"), "no model is named"),
        (("auto-opt", "one", "-m", "two", "-o", "out"), "two models are named"),
        (("optimize", "model"), "no output folder is named"),
        (("optimize", "model", "-o", "out", "--device", "toaster"), "toaster"),
        (("optimize", "model", "-o", "out", "--provider", "dml", "--device", "cpu"), "--device cpu"),
        (("optimize", "model", "-o", "out", "--trust-remote-code"), "never runs code from a checkpoint"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(arguments: tuple[str, ...], words: str) -> None:
    assert words in said(*arguments)


def test_sizes_that_a_person_takes_for_one_are_called_alike() -> None:
    from drupe_optimize.command import _compared

    assert _compared(100, 101) == _compared(101, 100) == ", as large as its source"
    assert _compared(100, 280) == ", 2.8 times smaller than its source"


def test_auto_opt_says_what_it_is() -> None:
    done = subprocess.run([sys.executable, "-m", "drupe", "auto-opt", "--help"], capture_output=True, text=True)
    assert "Olive" in done.stdout and "underscores" in done.stdout and "--model-name-or-path" in done.stdout


def test_a_plan_says_where_the_disk_is_too_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from drupe_optimize.command import _free_bytes, _show_preview

    preview = Preview(
        source=Model("text", tmp_path),
        target=Target("paper", "paper", Capabilities((), (), ())),
        plan=Plan(()),
        steps=(),
        estimate=Estimate(output_bytes=100, read_bytes=1, weights_held_bytes=1, work=0),
        threads=1,
        problems=(),
    )
    _show_preview(preview, 99, as_json=False)
    assert "would not fit" in capsys.readouterr().out
    _show_preview(preview, _free_bytes(tmp_path / "not" / "yet"), as_json=False)
    assert "would not fit" not in capsys.readouterr().out
