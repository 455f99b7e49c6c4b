"""Operator tables: which nodes they serve, why they refuse others, and the known traits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drupe.api import PluginError, Target
from drupe_onnx import Capabilities, KernelSupport, Operator, OperatorUse, capabilities_of
from drupe_onnx.traits import TRAITS

FLOAT, HALF = frozenset({"float32"}), frozenset({"float16"})
MATMUL = Operator(
    ("T", "B"),
    ("T",),
    (
        KernelSupport({"T": FLOAT}, since=1, until=12),
        KernelSupport({"T": FLOAT}, since=13, attributes={"bits": (4, 8)}),
        KernelSupport({"T": HALF}, since=13, attributes={"bits": (4,)}, refused=(1,)),
    ),
)
TABLE: dict[str, Any] = {"runtime_versions": ">=1", "activations": ["float32"], "traits": {}, "operators": {}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.json"


def add(kernel: dict[str, Any]) -> dict[str, Any]:
    """A table whose one operator has one kernel."""
    return {**TABLE, "operators": {"Add": {"inputs": ["T", "T"], "outputs": ["T"], "kernels": [kernel]}}}


@pytest.mark.parametrize(
    ("inputs", "bits", "version", "reason"),
    [
        (("float32", "uint8"), 4, 13, None),
        (("float32", "uint8"), 3, 13, "attribute bits = 3; supported: 4, 8"),
        (("float16", "uint8"), 4, 13, "input 1 is not supported"),
        (("float16", ""), 8, 13, "attribute bits = 8; supported: 4"),
        (("float32", "uint8"), 3, 12, None),
    ],
)
def test_the_reason_of_a_refusal_comes_from_the_closest_kernel(
    inputs: tuple[str, ...], bits: int, version: int, reason: str | None
) -> None:
    use = OperatorUse("", "MatMul", version, inputs, ("float16" if "float16" in inputs else "float32",), {"bits": bits})
    assert MATMUL.refusal(use) == reason


def test_an_operator_without_kernels_serves_nothing() -> None:
    assert Operator((), (), ()).refusal(OperatorUse("", "MatMul", 13, ())) == "no kernel"


@pytest.mark.parametrize(
    ("kernel", "place"),
    [
        ({"since": "old"}, "Expected `int`, got `str` - at `operators.Add.kernels[0].since`"),
        ({"untill": 7}, "Object contains unknown field `untill` - at `operators.Add.kernels[0]`"),
    ],
)
def test_the_error_for_a_wrong_table_says_where(path: Path, kernel: dict[str, Any], place: str) -> None:
    path.write_text(json.dumps(add(kernel)))
    with pytest.raises(PluginError, match=re.escape(f"the operator table is wrong: {place}")) as caught:
        Capabilities.from_json(path)
    assert caught.value.where == str(path)


def test_a_table_that_is_missing_or_is_not_json_is_an_error(path: Path) -> None:
    with pytest.raises(PluginError, match="cannot be read"):
        Capabilities.from_json(path)
    path.write_text(json.dumps(TABLE)[:-1])
    with pytest.raises(PluginError, match="the operator table is wrong: Input data was truncated"):
        Capabilities.from_json(path)


def test_a_valid_table_is_read(path: Path) -> None:
    path.write_text(json.dumps(add({"since": 7})))
    assert Capabilities.from_json(path).serves(OperatorUse("", "Add", 14, ("float32", "float32"), ("float32",)))


def test_the_error_for_a_misspelt_trait_suggests_the_nearest_one(path: Path) -> None:
    path.write_text(json.dumps({**TABLE, "traits": {"matmul_nbit_accuracy_levels": 4}}))
    with pytest.raises(PluginError, match="did you mean matmul_nbits_accuracy_level") as caught:
        Capabilities.from_json(path)
    assert caught.value.where == str(path)
    with pytest.raises(PluginError, match="unknown trait 'speed'; there are: matmul_nbits_accuracy_level"):
        Capabilities(">=1", {}, ("float32",), {"speed": 9000})


@pytest.mark.parametrize("name", ["acme.tile_bytes", "acme-npu.tiles.bytes"])
def test_traits_with_a_prefix_are_accepted(name: str) -> None:
    assert Capabilities(">=1", {}, ("float32",), {name: True}).traits == {name: True}


@pytest.mark.parametrize("value", [True, "32", "true", 4.5, None, [32, "64"], {"4/32": "fast"}, {"a": None}])
def test_a_trait_holds_only_what_it_can(value: object) -> None:
    """A value that fits one of the traits is refused by all others, and by each with its name and meaning."""
    taken = []
    for name, trait in TRAITS.items():
        try:
            Capabilities(">=1", {}, ("float32",), {name: value})
            taken.append(trait.kind)
        except PluginError as error:
            assert error.what == f"the trait '{name}' is {value!r}, and {trait.kind} is wanted: {trait.meaning}"
    wanted = {"true or false"} if value is True else {"an object of names"} if value == {"4/32": "fast"} else set()
    assert {*taken} == wanted


@pytest.mark.parametrize("name", [".bytes", "acme.", "Acme.bytes", "acme..bytes"])
def test_a_trait_with_an_invalid_prefix_is_refused(name: str) -> None:
    with pytest.raises(PluginError, match="unknown trait"):
        Capabilities(">=1", {}, ("float32",), {name: True})


def test_every_trait_has_a_description() -> None:
    assert all(trait.meaning for trait in TRAITS.values())


def test_importing_tables_and_providers_loads_nothing_heavy() -> None:
    code = (
        "import sys; from drupe_onnx import Capabilities, TableProvider, quantized_stages;"
        "print([name for name in ('numpy', 'onnx_ir', 'onnx', 'pydantic') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_target_without_a_table_is_assumed_to_run_everything() -> None:
    table = Capabilities(">=1", {"MatMul": MATMUL}, ("float16",))
    strange = OperatorUse("com.acme", "Warp", 1, ("float8e4m3fn", None))
    assert capabilities_of(Target("cpu", capabilities=table)) is table
    found = capabilities_of(Target("npu"))
    assert found.serves(strange) and not table.serves(strange)
    assert (found.activations[0], dict(found.traits)) == ("float32", {})
