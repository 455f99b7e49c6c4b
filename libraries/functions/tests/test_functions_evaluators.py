"""Functions of a user's own file as evaluators: on the command line, in a workflow, and from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sites import Site

MEASURES = '''
"""Measures of my own."""
from __future__ import annotations
from helper import DOUBLE
from drupe.api import Metric

def letters(session, times: int = 1, kind: str = "all"):
    """How many letters are echoed."""
    return len(session.echo("hello")) * times * DOUBLE

def several(session, /):
    print("said on the way")
    return {"first": 1, "second": 2.5}

def metric(session):
    return [Metric("misses", 3, "letters", "lower", (2, 4))]

def fails(session):
    return 1 / 0

def nothing(session):
    return None

def endless(session):
    return {"ratio": float("inf")}

def alone():
    return 1
'''


def line(text: str) -> str:
    """The line of the file that begins with a text."""
    found = (at for at, each in enumerate(MEASURES.splitlines(), 1) if each.strip().startswith(text))
    return f"line {next(found)}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("DOUBLE = 2\n")
    (tmp_path / "measures.py").write_text(MEASURES)
    return tmp_path / "measures.py"


@pytest.fixture
def package(acme: Site, source: Path, tmp_path: Path) -> Path:
    out = tmp_path / "package"
    assert acme.run_here("optimize", source, "-o", out, "--provider", "paper", "--precision", "plain").returncode == 0
    return out


def test_a_function_is_given_the_open_package_and_its_settings(acme: Site, package: Path, file: Path) -> None:
    asked = ("evaluate", package, "--evaluator", f"{file}:letters", "--json")
    told = json.loads(acme.run_here(*asked).stdout)
    letters = told["letters"]
    assert letters > 0 and told["settings"] == {f"{file}:letters": {"times": 1, "kind": "all"}}
    more = acme.run_here(*asked, "--set", "times=3", "--set", f"{file}:letters.kind=some")
    assert json.loads(more.stdout)["letters"] == 3 * letters


def test_a_function_may_give_several_numbers_and_metrics(acme: Site, package: Path, file: Path) -> None:
    both = ("--evaluator", f"{file}:several:second", "--evaluator", f"{file}:metric")
    done = acme.run_here("evaluate", package, *both)
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["second", "2.5", "higher"], ["misses", "3", "letters", "lower", "2", "to", "4"],
    ]  # fmt: skip
    assert "said on the way" in done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", ("fails fails: ZeroDivisionError: division by zero", line("return 1 / 0"))),
        ("nothing", ("nothing is None, which is not a number", line("def nothing"))),
        ("endless", ("ratio is inf", line("def endless"))),
        ("alone", ("takes no open package", line("def alone"), "def alone(session, ...)")),
        ("leters", ("unknown function 'leters'; did you mean letters",)),
        ("DOUBLE", ("unknown function 'DOUBLE'",)),
        ("letters", ("tims", "did you mean times", "--set tims")),
        ("letters:words", ("no", "words", "letters")),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(
    name: str, said: tuple[str, ...], acme: Site, package: Path, file: Path
) -> None:
    settings = ("--set", "tims=2") if "tims" in said else ()
    done = acme.run_here("evaluate", package, "--evaluator", f"{file}:{name}", *settings)
    assert done.returncode == 2, done.stderr
    for each in said:
        assert each in done.stderr
    assert "pip" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def share(session:\n", ("SyntaxError", "line 1")),
        ("x = 3\nimport nowhere_at_all\n", ("nowhere_at_all", "line 2")),
        ("raise SystemExit(0)\n", ("SystemExit", "line 1")),
        (None, ("there is no such Python file",)),
    ],
)
def test_a_file_that_cannot_be_run_is_named(
    text: str | None, said: tuple[str, ...], acme: Site, package: Path, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "broken.py").write_text(text)
    done = acme.run_here("evaluate", package, "--evaluator", f"{tmp_path / 'broken.py'}:share")
    assert done.returncode == 2 and str(tmp_path / "broken.py") in done.stderr
    for each in said:
        assert each in done.stderr


def test_a_file_without_a_function_is_refused(acme: Site, package: Path, file: Path) -> None:
    done = acme.run_here("evaluate", package, "--evaluator", file)
    assert done.returncode == 2 and "no function of it" in done.stderr and "FILE.py:FUNCTION" in done.stderr


def test_a_workflow_measures_with_a_function_and_keeps_what_it_gives(
    acme: Site, source: Path, file: Path, tmp_path: Path
) -> None:
    target = {"provider": "paper", "precision": "plain"}
    measure = {f"{file}:letters": {"times": 2}, f"{file}:several:first": {}}
    (tmp_path / "workflow.json").write_text(json.dumps({"model": str(source), "target": target, "measure": measure}))
    done = acme.run_here("run", tmp_path / "workflow.json", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "out" / "drupe.json").read_text())["measured"]
    assert [each["evaluator"] for each in kept] == [f"{file}:letters", f"{file}:several"]
    assert kept[0]["brought_by"].startswith("measures.py ") and kept[0]["settings"] == {"times": 2, "kind": "all"}


def test_a_function_measures_where_python_names_it(acme: Site, package: Path, file: Path) -> None:
    script = f"import drupe; print(drupe.evaluate({str(package)!r}, evaluator={f'{file}:letters'!r}, times=4)[0].value)"
    done = acme.python(script)
    assert float(done.stdout) > 0, done.stderr


def test_a_plan_runs_no_file(acme: Site, package: Path, file: Path, tmp_path: Path) -> None:
    record = json.loads((package / "drupe.json").read_text())
    record["plan"]["check"]["evaluator"] = f"{file}:letters"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{MEASURES}")
    (tmp_path / "plan.json").write_text(json.dumps(record["plan"]))
    done = acme.run_here("run", tmp_path / "plan.json", "-o", tmp_path / "again")
    assert done.returncode != 0 and not (tmp_path / "ran").exists(), done.stderr


def test_the_settings_of_a_function_are_listed(acme: Site, file: Path) -> None:
    listed = acme.run_here("evaluators", f"{file}:letters").stdout
    assert "How many letters are echoed." in listed and "times" in listed
