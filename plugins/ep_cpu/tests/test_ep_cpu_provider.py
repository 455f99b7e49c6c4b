"""The provider `cpu`: its device, its recipes, and that naming it loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from drupe.api import Recipe, Stage, registry
from drupe_ep_cpu import machine
from drupe_ep_cpu.provider import Cpu


def numerics(recipe: Recipe, stage: str) -> Mapping[str, Any]:
    """The numerics that a recipe gives to a stage."""
    return next(each.numerics for each in recipe.stages if isinstance(each, Stage) and each.name == stage)


def test_int4_is_the_first_precision_and_each_has_one_recipe() -> None:
    assert [recipe.precision for recipe in Cpu().recipes()] == ["int4", "int8", "fp16", "bf16", "fp32"]


def test_half_precision_is_used_for_storage_only() -> None:
    built = {recipe.precision: numerics(recipe, "import") for recipe in Cpu().recipes()}
    assert built["fp16"] == {"weights": "float16", "activations": "float32"}
    assert built["bf16"] == {"weights": "bfloat16", "activations": "float32"}


def test_a_quantized_recipe_states_only_its_bits() -> None:
    int4, int8, *others = Cpu().recipes()
    assert (numerics(int4, "quantize"), numerics(int8, "quantize")) == ({"bits": 4}, {"bits": 8})
    assert numerics(int4, "import") == {}
    assert not any(recipe.quantizes for recipe in others)


def test_cpu_is_the_most_preferred_of_the_shipped_providers() -> None:
    first, *others = registry().sound_providers()
    assert others and first[1].name == "cpu"
    assert all(first[0].ref.preference > entry.ref.preference for entry, _ in others)


def test_this_machine_has_one_processor() -> None:
    (device,) = Cpu().devices()
    assert device.kind == "cpu"
    assert device.name
    assert device.memory is None or device.memory > 0


def test_the_memory_of_the_device_is_what_the_container_leaves(tmp_path: Path) -> None:
    assert machine._cgroup_room(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("300\n")
    assert machine._cgroup_room(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.stat").write_text("anon 200\ninactive_file 50\n")
    assert machine._cgroup_room(tmp_path) == 750


def test_fewer_threads_than_the_process_may_use_are_worth_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drupe_ep_cpu.provider.usable_threads", lambda: 16)
    monkeypatch.setattr(machine, "physical_cores", lambda: 8)
    threads, *others = Cpu().session_settings()
    assert threads.name == "threads" and list(threads.values) == [16, 8, 4, 2, 1] and threads.ordered
    assert [each.name for each in others] == ["spinning", "graph_optimization_level", "arena"]
    monkeypatch.setattr("drupe_ep_cpu.provider.usable_threads", lambda: 1)
    assert list(Cpu().session_settings()[0].values) == [1]


def test_threads_of_one_core_count_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the folder is Linux's")
    for cpu, core in ((0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(f"{core}\n")
    monkeypatch.setattr(machine, "CPUS", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert machine.physical_cores() == 2
    monkeypatch.setattr(machine, "CPUS", tmp_path / "nowhere")
    assert machine.physical_cores() is None


def test_the_runtime_gets_no_options() -> None:
    assert Cpu().runtime_options() == {}


def test_naming_the_provider_loads_nothing_heavy() -> None:
    code = "import sys, drupe_ep_cpu.plugin as p; p.drupe_execution_providers(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "drupe_ep_cpu.provider" not in loaded
    assert not {"numpy", "onnxruntime", "pydantic", "drupe.target"} & set(loaded)
