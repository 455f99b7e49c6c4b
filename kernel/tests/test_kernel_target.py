"""Capability tables: what they serve, and the reason they give for what they do not."""

from __future__ import annotations

import json

import pytest

from drupe.api import Capabilities, KernelSupport, Operator, OperatorUse, PluginError

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


@pytest.mark.parametrize(
    ("inputs", "bits", "version", "reason"),
    [
        (("float32", "uint8"), 4, 13, None),
        (("float32", "uint8"), 3, 13, "attribute bits = 3; served: 4, 8"),
        (("float16", "uint8"), 4, 13, "input 1 is not served"),
        (("float16", ""), 8, 13, "attribute bits = 8; served: 4"),
        (("float32", "uint8"), 3, 12, None),
    ],
)
def test_the_reason_is_that_of_the_kernel_that_comes_closest(inputs, bits, version, reason):
    use = OperatorUse("", "MatMul", version, inputs, ("float16" if "float16" in inputs else "float32",), {"bits": bits})
    assert MATMUL.refusal(use) == reason


def test_an_operator_without_kernels_serves_nothing():
    assert Operator((), (), ()).refusal(OperatorUse("", "MatMul", 13, ())) == "no kernel"


def test_a_table_that_is_wrong_says_where(tmp_path):
    table = {
        "runtime_versions": ">=1",
        "activations": ["float32"],
        "operators": {"Add": {"inputs": ["T", "T"], "outputs": ["T"], "kernels": [{"since": "old"}]}},
    }
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table))
    with pytest.raises(PluginError, match=r"wrong at operators\.Add\.kernels\.0\.since"):
        Capabilities.from_json(path)
    table["operators"]["Add"]["kernels"] = [{"untill": 7}]
    path.write_text(json.dumps(table))
    with pytest.raises(PluginError, match=r"wrong at operators\.Add\.kernels\.0\.untill"):
        Capabilities.from_json(path)
    path.write_text(json.dumps(table)[:-1])
    with pytest.raises(PluginError, match="wrong at its top"):
        Capabilities.from_json(path)
    table["operators"]["Add"]["kernels"] = [{"since": 7}]
    path.write_text(json.dumps(table))
    assert Capabilities.from_json(path).serves(OperatorUse("", "Add", 14, ("float32", "float32"), ("float32",)))
