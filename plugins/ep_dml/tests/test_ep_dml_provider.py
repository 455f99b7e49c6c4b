"""The provider `dml`: its recipes, its options, and the devices that it finds."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from drupe.api import Device, Recipe, Stage
from drupe_ep_dml import machine
from drupe_ep_dml.provider import Dml


@pytest.fixture(params=Dml().recipes(), ids=lambda recipe: recipe.name)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return request.param  # type: ignore[no-any-return]


def numerics(recipe: Recipe, stage: str) -> Mapping[str, Any]:
    """The numerics that a recipe gives to a stage."""
    return next(each.numerics for each in recipe.stages if isinstance(each, Stage) and each.name == stage)


def test_int4_is_the_first_precision_and_each_has_one_recipe() -> None:
    assert [recipe.precision for recipe in Dml().recipes()] == ["int4", "int8", "fp16", "fp32"]


def test_a_recipe_computes_in_a_type_of_the_table(recipe: Recipe) -> None:
    assert numerics(recipe, "import")["activations"] in Dml().capabilities(None).activations


def test_the_quantized_recipes_are_symmetric() -> None:
    assert [numerics(recipe, "quantize") for recipe in Dml().recipes()[:2]] == [
        {"bits": 4, "symmetric": True},
        {"bits": 8, "symmetric": True},
    ]


def test_without_a_runtime_there_are_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "adapters", lambda: [("Radeon", 1)])
    monkeypatch.setattr(Dml, "versioned_by", ("no-such-distribution",))
    assert not Dml().devices()


def test_with_a_runtime_the_adapters_are_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dml, "runtime_version", lambda self: "1.24.4")
    monkeypatch.setattr(machine, "adapters", lambda: [("Radeon", 2**33)])
    assert Dml().devices() == (Device("Radeon", "gpu", 2**33),)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows may have adapters")
def test_adapters_are_found_on_windows_only() -> None:
    assert machine.adapters() == []


def test_adapters_are_read_through_dxgis_method_tables() -> None:
    """Two interfaces made here stand in for DXGI's: a factory with two adapters that share one table."""
    pointer = ctypes.c_void_p
    released: list[int] = []
    asked: list[int] = []

    def enumerate_adapters(this: int, index: int, result: Any) -> int:
        asked.append(index)
        if index > 1:
            return -1
        result[0] = ctypes.addressof(adapter)
        return 0

    def describe(this: int, result: Any) -> int:
        name = f"GPU {asked[-1]}".encode("utf-16-le")
        ctypes.memmove(result[0].name, name, len(name))
        result[0].dedicated_video = 2**33
        result[0].flags = 2 * asked[-1]
        return 0

    def release(this: int) -> int:
        released.append(this)
        return 0

    def method(function: Any, *arguments: Any) -> Any:
        return ctypes.CFUNCTYPE(ctypes.c_int32, pointer, *arguments)(function)

    listing = method(enumerate_adapters, ctypes.c_uint32, ctypes.POINTER(pointer))
    describing = method(describe, ctypes.POINTER(machine.AdapterDescription))
    releasing = method(release)

    def interface(**methods: Any) -> Any:
        table = (pointer * 13)()
        for place, each in methods.items():
            table[int(place[1:])] = ctypes.cast(each, pointer).value
        return table, pointer(ctypes.addressof(table))

    factory_table, factory = interface(_2=releasing, _12=listing)
    adapter_table, adapter = interface(_2=releasing, _10=describing)
    descriptions = machine.described(pointer(ctypes.addressof(factory)))
    found = [(each.text(), each.dedicated_video, each.flags) for each in descriptions]
    assert found == [("GPU 0", 2**33, 0), ("GPU 1", 2**33, 2)]
    assert asked == [0, 1, 2]
    assert released == [ctypes.addressof(adapter)] * 2 + [ctypes.addressof(factory)]
    assert factory_table and adapter_table


def test_runtime_options_keep_the_runtimes_defaults() -> None:
    assert Dml().runtime_options() == {"dml": {}}


def test_naming_the_provider_loads_nothing_heavy() -> None:
    code = "import sys, drupe_ep_dml.plugin as p; p.drupe_execution_providers(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "drupe_ep_dml.provider" not in loaded
    assert not {"numpy", "onnxruntime", "pydantic", "drupe.target"} & set(loaded)
