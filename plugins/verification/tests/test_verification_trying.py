"""Trying packages: what is said where nobody can tell, where a process dies, and what a package is compared with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny import edit_config, make_checkpoint

import drupe
from drupe.api import Event, NotChecked, Recipe, Stage, hookimpl, listen, registry
from drupe_ep_cpu.provider import Cpu
from drupe_verification.measuring import float_recipe

CALM = {"quality": "fast", "tokens": 32}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("verification") / "checkpoint")


@pytest.fixture
def purposeless(tmp_path: Path) -> Path:
    """A checkpoint that does not say what it is for."""
    return edit_config(make_checkpoint(tmp_path / "purposeless"), "architectures")


def test_a_package_runs_and_is_compared_with_its_source(checkpoint: Path, tmp_path: Path) -> None:
    check = drupe.optimize(checkpoint, tmp_path / "out", **CALM).check
    assert check.not_run is None and check.not_compared is None
    assert check.metrics["kl_divergence"] >= 0
    record = json.loads((tmp_path / "out" / "drupe.json").read_text())
    assert record["checked"] is True
    assert record["check"]["metrics"] == dict(check.metrics)


def test_a_model_whose_task_nobody_knows_is_optimized_and_said_to_be_unchecked(
    purposeless: Path, tmp_path: Path
) -> None:
    check = drupe.optimize(purposeless, tmp_path / "out", quality="fast").check
    assert check.not_run == "the model's task is unknown"
    record = json.loads((tmp_path / "out" / "drupe.json").read_text())
    assert record["checked"] is False and record["task"] is None


def test_a_check_that_is_required_and_cannot_be_made_publishes_nothing(purposeless: Path, tmp_path: Path) -> None:
    with pytest.raises(NotChecked, match="the model's task is unknown") as caught:
        drupe.optimize(purposeless, tmp_path / "out", quality="fast", require_check=True)
    assert caught.value.exit_status == 9
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that ends a process so")
def test_a_process_that_the_system_kills_leaves_the_package_unchecked(
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
def test_a_provider_without_floats_is_compared_with_another_ones(provider: type[Cpu]) -> None:
    maker, precision = float_recipe(provider(), registry())
    assert type(maker) is Cpu
    assert precision == "fp32"


def test_the_references_build_is_told_as_a_part_of_the_run(checkpoint: Path, tmp_path: Path) -> None:
    """What is observed in this process: `drupe.evaluate` builds the reference here."""
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
