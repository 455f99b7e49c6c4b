"""`drupe evaluate` with any evaluator: flags, settings, limits."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

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

class Alone(Evaluator):
    name = "alone"
    summary = "how deep and how long a text is"
    metrics = {"depth": "how deep it is", "length": "how long it is", "heat": "how warm it is, in summer"}
    alone = True

    def evaluate(self, model, reference, config, context):
        assert reference is None
        return [Metric("depth[rows=2]", 3, "mm", "lower", (2, 5)), Metric("length", 4, "mm", "lower")]
"""
TELLER = """
from drupe.api import Evaluator, Metric

class Meter(Evaluator):
    name = "teller"
    summary = "what a text is"
    alone = True

    def evaluate(self, model, reference, config, context):
        return [Metric("told", 1, "", "higher", detail={"said": "a b"})]

class Alone(Meter):
    name = "untold"

    def evaluate(self, model, reference, config, context):
        return [Metric("told", 1, "", "higher", detail={"said": object()})]
"""
PLUGIN = """
from drupe.api import Option, Ref, hookimpl
@hookimpl
def drupe_evaluators():
    return [Ref("meter", "meter:Meter", "how long a text is"), Ref("alone", "meter:Alone", "how deep a text is")]
@hookimpl
def drupe_options():
    return [Option("at_most", "How long it may be.", type=int, group="Meters")]
"""


@pytest.fixture
def package(acme: Site, source: Path, tmp_path: Path) -> Path:
    """A package that acme runs. Another third party brings a second evaluator."""
    acme.add("meter", {"meter": "meter_plugin"}, {"meter.py": METER, "meter_plugin.py": PLUGIN})
    out = tmp_path / "package"
    assert acme.run_here("optimize", source, "-o", out, "--provider", "paper", "--precision", "plain").returncode == 0
    return out


def test_the_tasks_evaluator_is_used_unless_another_is_named(acme: Site, package: Path, source: Path) -> None:
    own = acme.run_here("evaluate", package, "--against", source, "--json")
    assert json.loads(own.stdout) == {"length": 18, "longer": 13, "settings": {"length": {"limit": None}}}
    named = acme.run_here("evaluate", package, "--evaluator", "meter", "--set", "unit=letters")
    assert named.stdout.splitlines()[1].split() == ["meters", "18", "letters", "lower"]
    unknown = acme.run_here("evaluate", package, "--evaluator", "metre")
    assert unknown.returncode == 2 and "did you mean meter" in unknown.stderr


def test_several_evaluators_measure_in_one_command(acme: Site, package: Path, source: Path) -> None:
    both = ("evaluate", package, "--evaluator", "length", "--evaluator", "alone", "--against", source)
    done = acme.run_here(*both)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "metric", "length:length", "longer", "depth[rows=2]", "alone:length",
    ]  # fmt: skip
    assert done.stdout.splitlines()[3].split() == ["depth[rows=2]", "3", "mm", "lower", "2", "to", "5"]
    told = json.loads(acme.run_here(*both, "--json").stdout)
    assert (told["length:length"], told["alone:length"]) == (18, 4)
    assert told["spread"] == {"depth[rows=2]": [2, 5]} and told["settings"] == {"length": {"limit": None}, "alone": {}}


def test_only_the_named_metrics_of_an_evaluator_are_shown(acme: Site, package: Path) -> None:
    asked = ("evaluate", package, "--evaluator", "alone:depth", "--evaluator", "meter:meters", "--json")
    told = json.loads(acme.run_here(*asked).stdout)
    assert set(told) == {"depth[rows=2]", "meters", "spread", "settings"}
    whole = acme.run_here("evaluate", package, "--evaluator", "alone:depth", "--evaluator", "alone", "--json")
    assert "length" in json.loads(whole.stdout)


def test_evaluate_has_the_options_of_plugins_that_bring_evaluators(acme: Site, package: Path) -> None:
    text = acme.run_here("evaluate", "--help").stdout
    assert "--at-most" in text and "--longest" in text
    assert "--quality" not in text  # an option of drupe-quantization, which brings no evaluator


def test_metrics_are_printed_before_a_limit_fails_the_command(acme: Site, package: Path) -> None:
    for more in (("--at-most", "3"), ("--set", "most=3"), ("--set", "meter.most=3")):
        done = acme.run_here("evaluate", package, "--evaluator", "meter", *more)
        assert done.returncode == 7 and "it is longer than 3" in done.stderr
        assert done.stdout.splitlines()[1].split() == ["meters", "18", "characters", "lower"]
    done = acme.run_here("evaluate", package, "--evaluator", "meter", "--at-most", "3", "--json")
    assert done.returncode == 7 and json.loads(done.stdout)["settings"]["meter"]["most"] == 3


def test_optimize_sets_keys_of_the_evaluator_as_of_passes(acme: Site, package: Path, source: Path) -> None:
    asked = ("optimize", source, "-o", package.with_name("more"), "--provider", "paper", "--precision", "plain")
    assert acme.run_here(*asked, "--set", "length.limit=3").returncode == 7
    done = acme.run_here(*asked, "--set", "sign.by=me", "--set", "length.limit=300")
    assert done.returncode == 0, done.stderr
    record = json.loads((package.with_name("more") / "drupe.json").read_text())
    assert record["plan"]["check"]["config"]["limit"] == 300
    for more, words in (
        (("--set", "length.limt=3"), "unknown key 'limt' of the evaluator 'length'; did you mean limit?"),
        (("--set", "length.limit=3", "--no-verify"), "--set length.limit has no effect with --no-verify"),
        (("--set", "meter.most=3"), "--set meter.most has no effect here: that evaluator does not measure"),
        (("--set", "lenth.limit=3"), "unknown pass or evaluator 'lenth' of this plan; did you mean length?"),
        (("--set", "sign.bye=me"), "unknown key 'bye' of the pass 'sign'; did you mean by?\n  in: --set sign.bye"),
    ):
        refused = acme.run_here(*asked, "--force", *more)
        assert refused.returncode == 2 and words in refused.stderr, refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--at-most", "3"), "--at-most has no effect with the evaluator 'length'"),
        (("--evaluator", "meter", "--longest", "3"), "--longest has no effect with the evaluator 'meter'"),
        (
            ("--evaluator", "meter", "--set", "mots=3"),
            "unknown key 'mots' of the evaluator 'meter'; did you mean most?",
        ),
        (("--evaluator", "meter", "--set", "meter.mots=3"), "in: --set meter.mots"),
        (
            ("--evaluator", "meter", "--set", "length.limit=3"),
            "is for the evaluator 'length', and this command uses meter",
        ),
        (("--evaluator", "alone", "--against", "/nowhere"), "--against has no effect with the evaluator 'alone'"),
        (("--evaluator", "meter:"), "--evaluator takes NAME or NAME:METRIC, not 'meter:'"),
        (("--evaluator", "alone:depht"), "unknown metric 'depht' of the evaluator 'alone'; did you mean depth?"),
        (("--evaluator", "alone:heat"), "does not measure heat of this package on this machine"),
        (("--evaluator", "meter:depth"), "unknown metric 'depth' of the evaluator 'meter'; there are: meters"),
        (("--set", "limit=many"), "limit = 'many'"),
        (("--set", "limit"), "--set takes KEY=VALUE"),
        (("--against", "/nowhere"), "/nowhere"),
    ],
)
def test_options_without_effect_are_refused(acme: Site, package: Path, arguments: tuple[str, ...], words: str) -> None:
    done = acme.run_here("evaluate", package, *arguments)
    assert done.returncode in (2, 3) and words in done.stderr and not done.stdout, done


def test_a_note_says_that_the_package_was_made_of_another_model(acme: Site, package: Path, source: Path) -> None:
    asked = ("--provider", "paper", "--precision", "plain", "--author", "me")
    assert acme.run_here("optimize", source, "-o", source.with_name("sibling"), *asked).returncode == 0
    for alike in (source, source.with_name("sibling")):
        assert acme.run_here("evaluate", package, "--against", alike).stderr == ""
    (source / "model.txt").write_text("another")
    done = acme.run_here("evaluate", package, "--against", source)
    assert done.returncode == 0 and "was made of another model than" in done.stderr


def test_an_error_is_printed_after_the_table_if_both_go_to_one_file(acme: Site, package: Path) -> None:
    command = acme.command("evaluate", package, "--evaluator", "meter", "--at-most", "3")
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    lines = subprocess.run(command, env=acme.environ(), check=False, **streams).stdout.splitlines()
    assert lines[0].startswith("metric") and lines[2].startswith("error: ")


def test_metrics_are_kept_in_the_record_where_the_user_wants_that(acme: Site, package: Path, source: Path) -> None:
    before = json.loads((package / "drupe.json").read_text())
    acme.run_here("evaluate", package, "--evaluator", "meter")
    assert json.loads((package / "drupe.json").read_text()) == before
    both = ("evaluate", package, "--evaluator", "length:longer", "--evaluator", "alone", "--against", source)
    for evaluators in (both, ("evaluate", package, "--evaluator", "meter", "--set", "most=99"), both):
        assert acme.run_here(*evaluators, "--keep").returncode == 0
    record = json.loads((package / "drupe.json").read_text())
    kept = record.pop("measured")
    assert record == before
    assert [(each["evaluator"], each["against"]) for each in kept] == [
        ("meter", None),
        ("length", str(source)),
        ("alone", None),
    ]
    assert [metric["name"] for metric in kept[1]["metrics"]] == ["length", "longer"]  # all of them
    assert kept[0]["settings"]["most"] == 99 and kept[2]["metrics"][0]["spread"] == [2, 5]


def test_what_cannot_be_kept_is_said_before_anything_is_measured(acme: Site, package: Path, source: Path) -> None:
    asked = ("evaluate", package, "--evaluator", "meter", "--keep")
    (package / "drupe.json").rename(package.parent / "drupe.json")
    done = acme.run_here(*asked)
    assert done.returncode == 2 and "this model has none" in done.stderr and not done.stdout
    record = json.loads((package.parent / "drupe.json").read_text())
    (package / "drupe.json").write_text(json.dumps({**record, "measured": [{"evaluator": 3}]}))
    assert "measurements in drupe.json are damaged" in acme.run_here(*asked).stderr


def test_the_texts_of_a_metric_are_printed(acme: Site, package: Path) -> None:
    plugin = PLUGIN.replace("meter", "teller").replace('"alone"', '"untold"')
    acme.add("teller", {"teller": "teller_plugin"}, {"teller.py": TELLER, "teller_plugin.py": plugin})
    done = acme.run_here("evaluate", package, "--evaluator", "teller")
    assert '"a b"' in done.stdout
    told = json.loads(acme.run_here("evaluate", package, "--evaluator", "teller", "--json").stdout)
    assert told["detail"] == {"told": {"said": "a b"}}
    untold = acme.run_here("evaluate", package, "--evaluator", "untold")
    assert untold.returncode != 0 and "detail is no mapping" in untold.stderr


def test_a_workflow_keeps_what_it_measures(acme: Site, package: Path, source: Path, tmp_path: Path) -> None:
    target = {"provider": "paper", "precision": "plain"}
    workflow = {"model": str(source), "target": target, "measure": {"meter": {"unit": "letters"}}}
    (tmp_path / "workflow.json").write_text(json.dumps(workflow))
    done = acme.run_here("run", tmp_path / "workflow.json", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (kept,) = json.loads((tmp_path / "out" / "drupe.json").read_text())["measured"]
    assert kept["evaluator"] == "meter" and kept["metrics"][0]["unit"] == "letters"
