"""The tables and the document of a measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drupe.api import Model
from drupe_eval_speed.measuring import Measurement, Row, Subject
from drupe_eval_speed.quantities import QUANTITIES
from drupe_eval_speed.report import print_document, print_tables
from drupe_eval_speed.settings import SpeedConfig
from drupe_timing import Case


def test_what_a_runtime_does_not_give_is_shown_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model.single("onnx", tmp_path, {})
    subjects = tuple(Subject(str(tmp_path / name), model, "cpu", "r", "1") for name in "abc")
    rows = (Row(QUANTITIES["energy"], Case(), ((2.0, 2.0), (), (3.0, 3.0))),)
    measured = Measurement(subjects, 8, (Case(),), rows)
    print_tables(measured, SpeedConfig(repeats=2))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("energy"))
    assert line.split("  ")[-1].strip() == "1.50" and line.count("not given") == 1
    print_document(measured, SpeedConfig(repeats=2))
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert [each and each["median"] for each in result["packages"]] == [2, None, 3]
    assert [each and each["median"] for each in result["ratios_to_first"]] == [None, 1.5]
