"""`drupe evaluate`, for any evaluator: its flags, its settings, its limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sites import Site

METER = """
from drupe.api import CheckFailed, Evaluator, EvaluatorConfig, Metric

class MeterConfig(EvaluatorConfig):
    most: int | None = None
    unit: str = "characters"

class Meter(Evaluator):
    name = "meter"
    summary = "how long a text is"
    Config = MeterConfig
    options = {"most": "at_most"}

    def evaluate(self, model, reference, config, context):
        metrics = [Metric("meters", len((model.location / "model.txt").read_text()), config.unit, "lower")]
        if config.most is not None and metrics[0].value > config.most:
            raise CheckFailed(f"it is longer than {config.most}", metrics=metrics)
        return metrics
"""
PLUGIN = """
from drupe.api import Option, Ref, hookimpl
@hookimpl
def drupe_evaluators():
    return [Ref("meter", "meter:Meter", "how long a text is")]
@hookimpl
def drupe_options():
    return [Option("at_most", "How long it may be.", type=int, group="Meters")]
"""


@pytest.fixture
def package(acme: Site, source: Path, tmp_path: Path) -> Path:
    """A package that acme runs, with an evaluator of another third party beside it."""
    acme.add("meter", {"meter": "meter_plugin"}, {"meter.py": METER, "meter_plugin.py": PLUGIN})
    out = tmp_path / "package"
    assert acme.run_here("optimize", source, "-o", out, "--provider", "paper", "--precision", "plain").returncode == 0
    return out


def test_the_tasks_own_evaluator_measures_unless_another_is_named(acme: Site, package: Path, source: Path) -> None:
    own = acme.run_here("evaluate", package, "--against", source, "--json")
    assert json.loads(own.stdout) == {"length": 18, "longer": 13, "settings": {"limit": None}}
    named = acme.run_here("evaluate", package, "--evaluator", "meter", "--set", "unit=letters")
    assert named.stdout.splitlines()[1].split() == ["meters", "18", "letters", "lower"]
    unknown = acme.run_here("evaluate", package, "--evaluator", "metre")
    assert unknown.returncode == 2 and "did you mean meter" in unknown.stderr


def test_its_flags_are_the_options_of_those_who_bring_evaluators(acme: Site, package: Path) -> None:
    text = acme.run_here("evaluate", "--help").stdout
    assert "--at-most" in text and "--longest" in text and "--speed" in text
    assert "--quality" not in text  # of drupe-quantization, which brings no evaluator


def test_what_was_measured_is_printed_before_a_limit_fails_it(acme: Site, package: Path) -> None:
    for more in (("--at-most", "3"), ("--set", "most=3")):
        done = acme.run_here("evaluate", package, "--evaluator", "meter", *more)
        assert done.returncode == 7 and "it is longer than 3" in done.stderr
        assert done.stdout.splitlines()[1].split() == ["meters", "18", "characters", "lower"]
    done = acme.run_here("evaluate", package, "--evaluator", "meter", "--at-most", "3", "--json")
    assert done.returncode == 7 and json.loads(done.stdout)["settings"]["most"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--at-most", "3"), "--at-most has no effect with the evaluator 'length'"),
        (("--evaluator", "meter", "--longest", "3"), "--longest has no effect with the evaluator 'meter'"),
        (("--evaluator", "meter", "--set", "mots=3"), "did you mean most"),
        (("--set", "limit=many"), "limit = 'many'"),
        (("--set", "limit"), "--set takes KEY=VALUE"),
        (("--against", "/nowhere"), "/nowhere"),
    ],
)
def test_what_has_no_effect_is_refused(acme: Site, package: Path, arguments: tuple[str, ...], words: str) -> None:
    done = acme.run_here("evaluate", package, *arguments)
    assert done.returncode in (2, 3) and words in done.stderr and not done.stdout, done


def test_a_package_made_of_another_model_is_said_to_be(acme: Site, package: Path, source: Path) -> None:
    (source / "model.txt").write_text("another")
    done = acme.run_here("evaluate", package, "--against", source)
    assert done.returncode == 0 and "was not made of" in done.stderr
