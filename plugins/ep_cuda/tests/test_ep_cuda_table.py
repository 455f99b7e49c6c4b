"""The CUDA tables: they serve the nodes of a decoder's graph.

They hold the kernels that the libraries of onnxruntime-gpu 1.24.4 and 1.31.1 register. Limits beyond types are from
those libraries' messages and from onnxruntime's source (contrib_ops/cuda); see `amendments/`.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import checkout_tools
import pytest

from drupe_ep_cuda.provider import Cuda
from drupe_onnx import Capabilities, OperatorUse

MS = "com.microsoft"
HALVES = ("float16", "bfloat16")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(params=["1.31.1", "1.24.4"])
def table(request: pytest.FixtureRequest) -> Capabilities:
    return Cuda().capabilities(request.param)


def attention(element: str, *rest: str, **attributes: object) -> OperatorUse:
    """Attention with packed queries, keys and values that rotates them itself."""
    inputs = (element, "", "", element, element, "int32", "int32", element, element, *rest)
    return OperatorUse(MS, "GroupQueryAttention", 1, inputs, attributes={"do_rotary": 1, **attributes})


def matmul_nbits(element: str, *rest: str, **attributes: object) -> OperatorUse:
    return OperatorUse(MS, "MatMulNBits", 1, (element, "uint8", element, *rest), attributes=attributes)


def test_every_amendment_gives_its_reason() -> None:
    for path in (Path(__file__).parents[1] / "amendments").glob("*.json"):
        for name, change in json.loads(path.read_text(encoding="utf-8"))["operators"].items():
            assert change.get("why"), f"{path.name}: {name}"


def test_the_table_for_the_installed_runtime_is_what_the_tool_writes() -> None:
    try:
        version = metadata.version("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        pytest.skip("onnxruntime-gpu is not installed, so there is no list of CUDA kernels")
    if version not in {"1.31.1", "1.24.4"}:
        pytest.skip(f"no table was made with onnxruntime-gpu {version}")
    tool = checkout_tools.tool("operator_tables")
    provider = tool.provider_named("cuda")
    amendments = tool.amendments_for(provider, version)
    written = tool.table_path(provider, amendments).read_text(encoding="utf-8")
    assert written == tool.make(provider, version, amendments)


@pytest.mark.parametrize(
    ("version", "held"),
    [("1.31.1", ">=1.31,<1.32"), ("1.24.4", ">=1.24,<1.31"), ("1.28.0", ">=1.24,<1.31"), (None, ">=1.31,<1.32")],
)
def test_the_runtime_version_chooses_the_table(version: str | None, held: str) -> None:
    assert Cuda().capabilities(version).runtime_versions == held


@pytest.mark.parametrize("element", HALVES)
def test_attention_takes_packed_qkv_and_rotates_in_half_precision(table: Capabilities, element: str) -> None:
    assert table.refusal(attention(element, softcap=50.0, local_window_size=4096)) is None


def test_attention_has_no_kernel_for_float32(table: Capabilities) -> None:
    assert not table.serves(attention("float32"))


@pytest.mark.parametrize(("version", "served"), [("1.31.1", True), ("1.24.4", False)])
def test_attention_normalizes_queries_and_keys_in_newer_runtimes(version: str, served: bool) -> None:
    use = attention("float16", "", "", "", "", "", "float16", "float16")
    assert Cuda().capabilities(version).serves(use) is served


@pytest.mark.parametrize(("version", "served"), [("1.31.1", True), ("1.24.4", False)])
def test_attention_takes_a_bias_in_newer_runtimes(version: str, served: bool) -> None:
    assert Cuda().capabilities(version).serves(attention("float16", "", "float16")) is served


@pytest.mark.parametrize("element", HALVES)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [16, 32, 64, 128])
def test_matmulnbits_is_served(table: Capabilities, element: str, bits: int, block: int) -> None:
    for zero_points in ((), ("uint8",), (element,)):
        assert table.refusal(matmul_nbits(element, *zero_points, bits=bits, block_size=block)) is None


@pytest.mark.parametrize(("version", "served"), [("1.31.1", True), ("1.24.4", False)])
def test_two_bits_and_a_bias_are_served_by_newer_runtimes_only(version: str, served: bool) -> None:
    table = Cuda().capabilities(version)
    assert table.serves(matmul_nbits("float16", bits=2, block_size=64)) is served
    assert table.serves(matmul_nbits("float16", "", "", "float16", bits=4, block_size=32)) is served


def test_four_bits_are_served_up_to_block_size_128(table: Capabilities) -> None:
    assert not table.serves(matmul_nbits("float16", bits=4, block_size=256))
    assert not table.serves(matmul_nbits("float16", bits=3, block_size=32))


@pytest.mark.parametrize("element", HALVES)
def test_rows_of_a_block_quantized_table_are_gathered(table: Capabilities, element: str) -> None:
    for bits in (4, 8):
        attributes = {"bits": bits, "block_size": 32, "gather_axis": 0, "quantize_axis": 1}
        inputs = ("uint8", "int64", element, "uint8")
        assert table.refusal(OperatorUse(MS, "GatherBlockQuantized", 1, inputs, attributes=attributes)) is None


@pytest.mark.parametrize("element", HALVES)
def test_the_rest_of_a_decoder_runs_in_half_precision(table: Capabilities, element: str) -> None:
    uses = [
        OperatorUse("", "MatMul", 21, (element, element), (element,)),
        OperatorUse(MS, "FusedMatMul", 1, (element, element), (element,), {"transB": 1}),
        OperatorUse("", "SimplifiedLayerNormalization", 21, (element, element), (element,)),
        OperatorUse(MS, "SkipSimplifiedLayerNormalization", 1, (element,) * 3, (element, "", "", element)),
        OperatorUse(MS, "RotaryEmbedding", 1, (element, "int64", element, element), (element,)),
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
        OperatorUse("", "Constant", 21, (), ("int64",)),
    ]
    assert [reason for use in uses if (reason := table.refusal(use))] == []
