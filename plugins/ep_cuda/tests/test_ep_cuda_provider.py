"""The provider `cuda`: its recipes, its options, and the devices that it finds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from drupe.api import Device, Recipe, Stage
from drupe_ep_cuda import machine
from drupe_ep_cuda.provider import Cuda


@pytest.fixture(params=Cuda().recipes(), ids=lambda recipe: recipe.name)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return request.param  # type: ignore[no-any-return]


def numerics(recipe: Recipe, stage: str) -> Mapping[str, Any]:
    """The numerics that a recipe gives to a stage."""
    return next(each.numerics for each in recipe.stages if isinstance(each, Stage) and each.name == stage)


def test_int4_is_the_first_precision_and_each_has_one_recipe() -> None:
    assert [recipe.precision for recipe in Cuda().recipes()] == ["int4", "int8", "fp16", "bf16"]


def test_a_recipe_computes_in_a_type_of_the_table(recipe: Recipe) -> None:
    assert numerics(recipe, "import")["activations"] in Cuda().capabilities(None).activations


def test_without_a_runtime_there_are_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: [("NVIDIA H100", 1)])
    monkeypatch.setattr(Cuda, "versioned_by", ("no-such-distribution",))
    assert not Cuda().devices()


def test_without_a_driver_there_are_no_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Cuda, "runtime_version", lambda self: "1.24.4")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not Cuda().devices()


def test_with_runtime_and_driver_the_gpus_are_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cuda, "runtime_version", lambda self: "1.24.4")
    monkeypatch.setattr(machine, "gpus", lambda: [("NVIDIA H100", 2**36)])
    assert Cuda().devices() == (Device("NVIDIA H100", "gpu", 2**36),)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for the driver's program")
@pytest.mark.parametrize(("script", "found"), [("echo 'A, 7'", [("A", 7 * 2**20)]), ("echo 'A, 7'; exit 9", [])])
def test_if_the_driver_fails_there_are_no_devices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, found: list[tuple[str, int]]
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == found


def test_the_answer_of_nvidia_smi_is_read() -> None:
    answer = "NVIDIA H200, 143156\nNVIDIA GB10, [N/A]\n\n"
    assert machine.parsed(answer) == [("NVIDIA H200", 143156 * 1024 * 1024), ("NVIDIA GB10", None)]


def test_runtime_options_equal_those_of_the_genai_builder() -> None:
    """They are `ep_attrs` in builders/base.py of onnxruntime-genai 0.18."""
    assert Cuda().runtime_options() == {"cuda": {"enable_cuda_graph": "0"}}


def test_naming_the_provider_loads_nothing_heavy() -> None:
    code = "import sys, drupe_ep_cuda.plugin as p; p.drupe_execution_providers(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "drupe_ep_cuda.provider" not in loaded
    assert not {"numpy", "onnxruntime", "pydantic", "drupe.target"} & set(loaded)
