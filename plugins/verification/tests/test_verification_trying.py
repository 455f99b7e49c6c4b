"""Checking packages: unknown tasks, a check process that dies, and the reference for the comparison."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny import edit_config, make_checkpoint

import drupe
from drupe.api import (
    Event,
    Metric,
    NotChecked,
    PluginCrash,
    PluginError,
    Recipe,
    Stage,
    UsageError,
    hookimpl,
    listen,
    registry,
)
from drupe_ep_cpu.provider import Cpu
from drupe_eval_quality.quality import Quality
from drupe_verification.reference import float_recipe

CALM = {"quality": "fast", "tokens": 32}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("verification") / "checkpoint")


@pytest.fixture
def purposeless(tmp_path: Path) -> Path:
    """A checkpoint whose task is unknown."""
    return edit_config(make_checkpoint(tmp_path / "purposeless"), "architectures")


def test_a_package_is_run_and_compared_with_its_source(checkpoint: Path, tmp_path: Path) -> None:
    check = drupe.optimize(checkpoint, tmp_path / "out", **CALM).check
    assert check.not_run is None and check.not_compared is None
    assert check.metrics["kl_divergence"] >= 0
    record = json.loads((tmp_path / "out" / "drupe.json").read_text())
    assert record["checked"] is True
    assert record["check"]["metrics"] == dict(check.metrics)


@pytest.mark.parametrize("given", [None, [("length", 3)]])
def test_an_evaluator_that_gives_no_metrics_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: object
) -> None:
    drupe.optimize(checkpoint, tmp_path / "out", quality="fast", verify=False)
    monkeypatch.setattr(Quality, "evaluate", lambda *_: given)
    with pytest.raises(PluginCrash, match=r"the evaluator 'quality' of drupe-eval-quality .* which is not a Metric"):
        drupe.evaluate(tmp_path / "out", evaluator="quality")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_evaluator_that_gives_a_number_that_is_not_finite_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    drupe.optimize(checkpoint, tmp_path / "out", quality="fast", verify=False)
    monkeypatch.setattr(Quality, "evaluate", lambda *_: [Metric("length", value, "tokens", "lower")])
    with pytest.raises(PluginCrash, match=rf"evaluator 'quality' of drupe-eval-quality .* gave {value} for 'length'"):
        drupe.evaluate(tmp_path / "out", evaluator="quality")


def test_a_misspelt_key_of_a_recipe_is_laid_to_the_plugin_that_brings_the_recipe(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (Stage("import"), Stage("quantize", {"bits": 4, "symetric": True}), Stage("package"))
    monkeypatch.setattr(Cpu, "recipes", lambda self: [Recipe("misspelt", "int4", stages)])
    with pytest.raises(PluginError, match=r"drupe-ep-cpu gives .* an unknown key 'symetric'; did you mean symmetric"):
        drupe.plan(checkpoint, provider="cpu")


def test_a_model_of_unknown_task_is_published_as_unchecked(purposeless: Path, tmp_path: Path) -> None:
    check = drupe.optimize(purposeless, tmp_path / "out", quality="fast").check
    assert check.not_run == "the model's task is unknown"
    record = json.loads((tmp_path / "out" / "drupe.json").read_text())
    assert record["checked"] is False and record["task"] is None


def test_nothing_is_published_if_a_required_check_cannot_be_made(purposeless: Path, tmp_path: Path) -> None:
    with pytest.raises(NotChecked, match="the model's task is unknown") as caught:
        drupe.optimize(purposeless, tmp_path / "out", quality="fast", require_check=True)
    assert caught.value.exit_status == 9
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that ends a process so")
def test_a_package_is_unchecked_if_the_system_kills_the_check_process(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    check = drupe.optimize(checkpoint, tmp_path / "out", **CALM).check
    assert check.not_run is not None and "the system stopped the check" in check.not_run


class OnlyInt4(Cpu):
    def recipes(self) -> list[Recipe]:
        return [Recipe("only", "int4", (Stage("import"), Stage("quantize", {"bits": 4}), Stage("package")))]


class CallsInt4ItsReference(OnlyInt4):
    reference_precision = "int4"


@pytest.mark.parametrize("provider", [OnlyInt4, CallsInt4ItsReference])
def test_the_reference_of_a_provider_without_a_float_recipe_comes_from_another_provider(provider: type[Cpu]) -> None:
    maker, precision = float_recipe(provider(), registry())
    assert type(maker) is Cpu
    assert precision == "fp32"


def test_events_of_building_the_reference_belong_to_the_run(checkpoint: Path, tmp_path: Path) -> None:
    """`drupe.evaluate` builds the reference in this process, so its events can be observed here."""
    drupe.optimize(checkpoint, tmp_path / "out", verify=False, quality="fast")
    seen: list[Event] = []

    class Watcher:
        @hookimpl
        def drupe_observe(self, event: Event) -> None:
            seen.append(event)

    listen(Watcher())
    drupe.evaluate(tmp_path / "out", checkpoint, tokens=32)
    built = {event.subject for event in seen if event.name == "pass-finished"}
    assert built == {"build-decoder", "package-genai"}
    assert len({event.run for event in seen}) == 1


def test_an_evaluator_of_other_tasks_is_refused_before_the_work(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="of the task feature-extraction, and this one is of the task text-generation"):
        drupe.optimize(checkpoint, tmp_path / "out", evaluator="embeddings")
    assert not (tmp_path / "out").exists()
