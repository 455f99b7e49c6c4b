"""What is printed for a person: tables, sizes, progress, and the events of a run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from drupe.api import Event, Progress
from drupe_console import LineProgress, Narrator, TerminalProgress, figure, progress, size, table


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (5.6e6, "5.6 MB"), (12.345e9, "12.35 GB")]
)
def test_sizes_are_short(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0010070361, "0.001007"),
        (1, "1"),
        (152.149, "152.1"),
        (9999.4, "9,999"),
        (14620.3, "14,620"),
        (1e300 * 1e300, "inf"),
    ],
)
def test_numbers_have_four_digits_and_no_exponent_where_they_are_large(value: float, text: str) -> None:
    assert figure(value) == text


def test_columns_are_aligned_and_not_wrapped_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table([("one", "x" * 300), ("twelve", "[bold]y")], ("name", "value"))
    assert capsys.readouterr().out.splitlines() == ["name    value", "one     " + "x" * 300, "twelve  [bold]y"]


def test_a_table_without_rows_prints_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    table([], ("name", "value"))
    assert capsys.readouterr().out.split() == ["name", "value"]


def test_without_a_terminal_a_step_prints_one_line_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress()
    assert isinstance(shown, LineProgress)
    with shown.task("writing", 2_000_000) as step:
        step.advance(2_000_000)
    assert capsys.readouterr().err.startswith("writing: 2 MB in ")
    quiet = progress(lines=False)
    assert type(quiet) is Progress
    with quiet.task("writing", 10) as step:
        step.advance(10)
    assert capsys.readouterr() == ("", "")


def test_a_step_that_stops_early_is_printed_as_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), LineProgress().task("measuring", 90, "token") as step:
        step.advance(40)
        raise KeyboardInterrupt
    line = capsys.readouterr().err
    assert line.startswith("measuring: 40 tokens in ")
    assert line.endswith("stopped before the end\n")


def test_a_terminal_shows_a_bar_with_its_unit_and_clears_it_afterwards(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert isinstance(progress(), TerminalProgress)
    with TerminalProgress().task("measuring", 90, "token") as step:
        step.advance(40)
    shown = capsys.readouterr().err
    assert "measuring" in shown
    assert "tokens" in shown
    assert shown.endswith("\x1b[2K") or "\x1b[1A\x1b[2K" in shown, "the line is erased"


def test_events_are_printed_with_steps_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator(1)
    narrator.drupe_observe(Event("pass-finished", "quantize-weights", seconds=1.5, details={"bytes": 7}))
    assert capsys.readouterr().err == "pass-finished: quantize-weights (1.50 s)\n"


def test_details_are_printed_from_level_two_except_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    Narrator(2).drupe_observe(Event("run-failed", details={"bytes": 7, "error": "told at the end"}))
    assert capsys.readouterr().err == "run-failed: \n    bytes: 7\n"


def test_runs_inside_a_run_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator(1)
    narrator.drupe_observe(Event("check-started", run="outer"))
    narrator.drupe_observe(Event("pass-started", "build-decoder", run="inner", parent="outer"))
    narrator.drupe_observe(Event("pass-started", "deeper", run="innermost", parent="inner"))
    narrator.drupe_observe(Event("check-finished", run="outer"))
    indents = [len(line) - len(line.lstrip()) for line in capsys.readouterr().err.splitlines()]
    assert indents == [0, 2, 4, 0]


def test_importing_drupe_console_does_not_load_rich() -> None:
    code = "import sys, drupe_console; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"rich", "pydantic"} & set(loaded)
