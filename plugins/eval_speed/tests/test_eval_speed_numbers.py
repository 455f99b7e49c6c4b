"""Spread, ratios and energy: what the numbers are, on values that are known."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from drupe.api import Model
from drupe_eval_speed.cases import Case
from drupe_eval_speed.energy import Energy
from drupe_eval_speed.measuring import Measurement, Row, Subject
from drupe_eval_speed.quantities import QUANTITIES
from drupe_eval_speed.report import print_document, print_tables
from drupe_eval_speed.settings import SpeedConfig
from drupe_eval_speed.spread import ENOUGH, TOO_FEW, WITHIN, ratio_of, spread_of


def test_the_interval_is_the_narrowest_pair_of_values_with_95_percent_confidence() -> None:
    few = spread_of([5, 1, 3])
    assert (few.median, few.low, few.high, few.sure) == (3, 1, 5, False)
    assert spread_of(range(ENOUGH)).sure and not spread_of(range(ENOUGH - 1)).sure
    nine = spread_of(range(1, 10))  # leaving out one value at each end keeps 96.1 %, two keep 82 %
    assert (nine.median, nine.low, nine.high, nine.sure) == (5, 2, 8, True)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    numbers = random.Random(1)
    held = 0
    for _ in range(2000):
        found = spread_of([numbers.expovariate(1.0) for _ in range(9)])
        held += found.low <= 0.6931 <= found.high
    assert 0.95 <= held / 2000 < 0.975


def test_a_difference_within_the_noise_is_called_that() -> None:
    base = [10.0, 10.4, 9.8, 10.1, 9.9, 10.2, 10.3]
    alike = ratio_of([10.1, 10.3, 9.9, 10.0, 10.0, 10.1, 10.2], base)
    slower = ratio_of([each * 1.2 for each in base], base)
    assert alike is not None and alike.verdict == WITHIN
    assert slower is not None and slower.verdict == "" and slower.spread.median == pytest.approx(1.2)
    barely = ratio_of([each * 1.01 for each in base], base)  # the same in each round, and as small as chance may be
    assert barely is not None and barely.verdict == WITHIN
    few = ratio_of([20.0, 21.0], [10.0, 10.0])
    assert few is not None and few.verdict == TOO_FEW
    assert ratio_of([1.0], [0.0]) is None


def test_load_that_comes_and_goes_disturbs_paired_ratios_little() -> None:
    busy = [1.0, 4.0, 1.0, 9.0, 1.0, 2.0, 7.0]
    found = ratio_of([each * 1.5 for each in busy], busy)
    assert found is not None and found.verdict == "" and found.spread.low == found.spread.high == pytest.approx(1.5)


def counter(folder: Path, name: str, kind: str, value: int, most: int = 1_000_000) -> Path:
    place = folder / name
    place.mkdir(parents=True)
    (place / "name").write_text(f"{kind}\n")
    (place / "max_energy_range_uj").write_text(f"{most - 1}\n")
    (place / "energy_uj").write_text(f"{value}\n")
    return place / "energy_uj"


def test_energy_is_that_of_processors_and_memory_each_counted_once(tmp_path: Path) -> None:
    first = counter(tmp_path, "intel-rapl:0", "package-0", 999_000)
    memory = counter(tmp_path, "intel-rapl:0:1", "dram", 500)
    for name, kind in (("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys"), ("intel-rapl-mmio:0", "package-0")):
        counter(tmp_path, name, kind, 7)
    energy = Energy(tmp_path)
    assert energy.missing is None
    before = energy.read()
    first.write_text("1000")  # it has begun again
    memory.write_text("1500")
    assert energy.joules(before, energy.read()) == pytest.approx((2000 + 1000) / 1e6)


def test_without_a_counter_it_is_said_that_energy_is_not_counted(tmp_path: Path) -> None:
    missing = Energy(tmp_path / "nowhere")
    assert missing.missing is not None and "does not count energy" in missing.missing
    assert missing.joules(missing.read(), missing.read()) == 0
    counter(tmp_path, "intel-rapl:0", "package-0", 1).write_text("none")
    assert "cannot be read" in str(Energy(tmp_path).missing)


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
