"""The DirectML table: it serves the nodes of a decoder's graph.

It holds the kernels of the DmlExecutionProvider section of onnxruntime's docs/OperatorKernels.md as of February 2026;
limits beyond types are from onnxruntime's source (core/providers/dml). See `amendments/`.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import checkout_tools
import pytest

from drupe_ep_dml.provider import Dml
from drupe_onnx import Capabilities, OperatorUse

ROOT = Path(__file__).resolve().parents[3]
MS = "com.microsoft"


@pytest.fixture(scope="module")
def table() -> Capabilities:
    return Dml().capabilities("1.24.4")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return checkout_tools.tool("operator_tables")


def attention(*inputs: str, **attributes: object) -> OperatorUse:
    return OperatorUse(MS, "GroupQueryAttention", 1, inputs, attributes=attributes)


def matmul_nbits(*rest: str, **attributes: object) -> OperatorUse:
    return OperatorUse(MS, "MatMulNBits", 1, ("float16", "uint8", "float16", *rest), attributes=attributes)


def test_every_amendment_gives_its_reason() -> None:
    for path in (ROOT / "plugins" / "ep_dml" / "amendments").glob("*.json"):
        for name, change in json.loads(path.read_text(encoding="utf-8"))["operators"].items():
            assert change.get("why"), f"{path.name}: {name}"


@pytest.mark.parametrize("version", ["1.24.4", "1.22.0", None])
def test_one_table_serves_every_version_of_the_runtime(version: str | None) -> None:
    assert Dml().capabilities(version).runtime_versions == ">=1.21,<1.25"


def test_attention_takes_separate_queries_keys_and_values(table: Capabilities) -> None:
    float16 = "float16"
    assert table.refusal(attention(*[float16] * 5, "int32", "int32", do_rotary=0)) is None


def test_attention_refuses_packed_qkv(table: Capabilities) -> None:
    use = attention("float16", "", "", "float16", "float16", "int32", "int32")
    assert table.refusal(use) == "com.microsoft::GroupQueryAttention: input 1 must be given"


def test_attention_with_rotation_inside_is_refused(table: Capabilities) -> None:
    seven = (*["float16"] * 5, "int32", "int32")
    assert not table.serves(attention(*seven, "float16", "float16", do_rotary=1))
    assert not table.serves(attention(*seven, do_rotary=1))


@pytest.mark.parametrize("ignored", [{"softcap": 50.0}, {"local_window_size": 4096}, {"smooth_softmax": 1}])
def test_attention_with_attributes_that_it_would_ignore_is_refused(
    table: Capabilities, ignored: dict[str, float]
) -> None:
    seven = (*["float16"] * 5, "int32", "int32")
    assert not table.serves(attention(*seven, **ignored))
    assert table.serves(attention(*seven, softcap=0.0, local_window_size=-1, smooth_softmax=0))


def test_rotary_embedding_is_served_as_a_node(table: Capabilities) -> None:
    float16 = "float16"
    assert table.serves(OperatorUse(MS, "RotaryEmbedding", 1, (float16, "int64", float16, float16), (float16,)))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 64, 128])
def test_symmetric_matmulnbits_is_served(table: Capabilities, bits: int, block: int) -> None:
    assert table.refusal(matmul_nbits(bits=bits, block_size=block)) is None


def test_zero_points_are_served_for_four_bits_only(table: Capabilities) -> None:
    assert table.serves(matmul_nbits("uint8", bits=4, block_size=32))
    assert not table.serves(matmul_nbits("uint8", bits=8, block_size=32))
    assert not table.serves(matmul_nbits("float16", bits=4, block_size=32))


def test_a_bias_and_two_bits_are_not_served(table: Capabilities) -> None:
    assert not table.serves(matmul_nbits("", "", "float16", bits=4, block_size=32))
    assert not table.serves(matmul_nbits(bits=2, block_size=32))
    assert table.traits["matmul_nbits_whole_blocks"] is True


def test_gatherblockquantized_is_not_served(table: Capabilities) -> None:
    use = OperatorUse(MS, "GatherBlockQuantized", 1, ("uint8", "int64", "float16"))
    assert table.refusal(use) == "no kernel for com.microsoft::GatherBlockQuantized"


def test_nothing_computes_in_bfloat16(table: Capabilities) -> None:
    assert "bfloat16" not in table.activations
    assert not table.serves(OperatorUse("", "MatMul", 21, ("bfloat16", "bfloat16")))
    assert not table.serves(OperatorUse("", "Cast", 21, ("bfloat16",), ("float16",)))


@pytest.mark.parametrize("element", ["float16", "float32"])
def test_the_other_nodes_of_a_decoder_are_served(table: Capabilities, element: str) -> None:
    uses = [
        OperatorUse("", "MatMul", 21, (element, element), (element,)),
        OperatorUse(MS, "FusedMatMul", 1, (element, element), (element,), {"transB": 1}),
        OperatorUse("", "SimplifiedLayerNormalization", 21, (element, element), (element,)),
        OperatorUse(MS, "SkipSimplifiedLayerNormalization", 1, (element,) * 3, (element, "", "", element)),
        OperatorUse("", "Add", 21, (element, element), (element,)),
        OperatorUse("", "Mul", 21, (element, element), (element,)),
        OperatorUse("", "Sigmoid", 21, (element,), (element,)),
        OperatorUse("", "Gather", 21, (element, "int64"), (element,)),
        OperatorUse("", "Cast", 21, (element,), ("float32",)),
        OperatorUse("", "ReduceSum", 21, ("int64", "int64"), ("int64",)),
        OperatorUse("", "Sub", 21, ("int64", "int64"), ("int64",)),
        OperatorUse("", "Shape", 21, ("int64",), ("int64",)),
        OperatorUse("", "Cast", 21, ("int64",), ("int32",)),
        OperatorUse("", "Slice", 21, (element, "int64", "int64", "int64", "int64"), (element,)),
        OperatorUse("", "Reshape", 21, (element, "int64"), (element,)),
        OperatorUse("", "Constant", 21, (), ("int64",)),
    ]
    assert [reason for use in uses if (reason := table.refusal(use))] == []


def test_the_documentation_page_of_kernels_is_read(tool: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "## Operators implemented by OtherExecutionProvider\n"
        "|Abs|*in* X:**T**|13+|**T** = tensor(int8)|\n"
        "## Operators implemented by DmlExecutionProvider\n"
        "| Op Name | Parameters | OpSet Version | Types Supported |\n"
        "|---------|------------|---------------|-----------------|\n"
        "|**Operator Domain:** *ai.onnx*||||\n"
        "|Cast|*in* x:**T1**|13+|**T1** = tensor(float)<br/> **T2** = tensor(double), tensor(int8)|\n"
        "|||[6, 12]|**T1** = tensor(bool)<br/> **T2** = seq(tensor(float))|\n"
        "|||5|**T1** = tensor(bool)|\n"
        "|**Operator Domain:** *com.microsoft*||||\n"
        "|Gelu|*in* X:**T**<br> *out* Y:**T**|1+|**T** = tensor(float16)|\n"
    )
    kernels = tool.documented(page, "DmlExecutionProvider")
    assert kernels == {
        "Cast": [
            tool.Kernel(13, tool.OPEN, {"T1": {"float32"}, "T2": {"float64", "int8"}}),
            tool.Kernel(6, 12, {"T1": {"bool"}, "T2": {"seq(float32)"}}),
            tool.Kernel(5, 5, {"T1": {"bool"}}),
        ],
        "com.microsoft::Gelu": [tool.Kernel(1, tool.OPEN, {"T": {"float16"}})],
    }
