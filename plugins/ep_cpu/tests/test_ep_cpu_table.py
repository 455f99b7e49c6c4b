"""The CPU tables: they equal what the tool writes for the installed runtime, and are quick to read."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import ModuleType

import checkout_tools
import pytest

from drupe.api import UsageError
from drupe_ep_cpu.provider import Cpu
from drupe_onnx import Capabilities, OperatorUse

ROOT = Path(__file__).resolve().parents[3]
MS = "com.microsoft"
PACKED = ("float32", "", "", "float32", "float32", "int32", "int32", "float32", "float32")


@pytest.fixture(scope="module")
def newest() -> Capabilities:
    return Cpu().capabilities(None)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return checkout_tools.tool("operator_tables")


def attention(*inputs: str, **attributes: object) -> OperatorUse:
    return OperatorUse(MS, "GroupQueryAttention", 1, inputs, attributes={"do_rotary": 1, **attributes})


def matmul_nbits(activation: str, *rest: str, **attributes: object) -> OperatorUse:
    return OperatorUse(MS, "MatMulNBits", 1, (activation, "uint8", activation, *rest), attributes=attributes)


def test_the_table_for_the_installed_runtime_is_what_the_tool_writes(tool: ModuleType) -> None:
    version = pytest.importorskip("onnxruntime").__version__
    provider = tool.provider_named("cpu")
    try:
        amendments = tool.amendments_for(provider, version)
    except UsageError as nothing:
        pytest.skip(nothing.what)
    if (named := amendments.stem) != ".".join(version.split(".")[:2]):
        pytest.skip(f"the table was made with onnxruntime {named}, and {version} is installed")
    written = tool.table_path(provider, amendments).read_text(encoding="utf-8")
    assert written == tool.make(provider, version, amendments)


def test_every_amendment_gives_its_reason() -> None:
    for path in (ROOT / "plugins" / "ep_cpu" / "amendments").glob("*.json"):
        for name, change in json.loads(path.read_text(encoding="utf-8"))["operators"].items():
            assert change.get("why"), f"{path.name}: {name}"


def test_a_table_is_small_and_read_quickly() -> None:
    def seconds() -> float:
        start = time.process_time()
        Capabilities.from_json(Cpu.tables[0])
        return time.process_time() - start

    assert min(seconds() for _ in range(5)) < 0.05
    assert Cpu.tables[0].stat().st_size < 100_000


@pytest.mark.parametrize(
    ("version", "held"),
    [("1.32.0", ">=1.32,<1.33"), ("1.24.4", ">=1.24,<1.32"), ("1.31.1", ">=1.24,<1.32"), (None, ">=1.32,<1.33")],
)
def test_the_runtime_version_chooses_the_table(version: str | None, held: str) -> None:
    assert Cpu().capabilities(version).runtime_versions == held


def test_attention_takes_packed_qkv_and_rotates(newest: Capabilities) -> None:
    assert newest.refusal(attention(*PACKED)) is None
    assert newest.refusal(attention("float32", "float32", "float32", *PACKED[3:], softcap=30.0)) is None


def test_attention_takes_positions_a_bias_and_a_sink(newest: Capabilities) -> None:
    assert newest.refusal(attention(*PACKED, "int64", "float32", "float32")) is None


def test_attention_refuses_the_weights_of_q_and_k_norms(newest: Capabilities) -> None:
    norms = (*PACKED, "", "", "", "", "", "float32", "float32")
    assert newest.refusal(attention(*norms)) == "com.microsoft::GroupQueryAttention: input 14 is not supported"
    assert not Cpu().capabilities("1.24.4").serves(attention(*norms))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("block", [16, 32, 64, 128, 256])
def test_matmulnbits_is_served_in_every_width(newest: Capabilities, bits: int, block: int) -> None:
    for zero_points in ((), ("uint8",)):
        use = matmul_nbits("float32", *zero_points, bits=bits, block_size=block, accuracy_level=4)
        assert newest.refusal(use) is None


def test_matmulnbits_is_refused_for_other_widths_block_sizes_and_types(newest: Capabilities) -> None:
    assert not newest.serves(matmul_nbits("float32", bits=3, block_size=32))
    assert not newest.serves(matmul_nbits("float32", bits=4, block_size=24))
    assert not newest.serves(matmul_nbits("bfloat16", bits=4, block_size=32))
    assert newest.serves(matmul_nbits("float32", "float32", bits=4, block_size=32))
    assert not newest.serves(matmul_nbits("float32", "float32", bits=8, block_size=32))


@pytest.mark.parametrize(("version", "two_bits"), [("1.32.0", True), ("1.24.4", False)])
def test_rows_of_a_block_quantized_table_are_gathered(version: str, two_bits: bool) -> None:
    def gathered(bits: int) -> OperatorUse:
        attributes = {"bits": bits, "block_size": 32, "gather_axis": 0, "quantize_axis": 1}
        return OperatorUse(MS, "GatherBlockQuantized", 1, ("uint8", "int64", "float32", "uint8"), attributes=attributes)

    table = Cpu().capabilities(version)
    assert table.serves(gathered(4))
    assert table.serves(gathered(8))
    assert table.serves(gathered(2)) is two_bits


def test_matrices_are_multiplied_in_float32_only(newest: Capabilities) -> None:
    for name, domain, version in (("MatMul", "", 21), ("FusedMatMul", MS, 1)):
        served = [
            t for t in ("float32", "float16", "bfloat16") if newest.serves(OperatorUse(domain, name, version, (t, t)))
        ]
        assert served == ["float32"]
    assert newest.activations == ("float32",)
    assert newest.traits["casts_inserted"] == {"float16": "float32"}


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_weights_stored_in_half_precision_can_be_cast_and_gathered(newest: Capabilities, stored: str) -> None:
    assert newest.serves(OperatorUse("", "Cast", 21, (stored,), ("float32",)))
    assert newest.serves(OperatorUse("", "Gather", 21, (stored, "int64"), (stored,)))


def test_norms_and_rotary_embeddings_are_served_as_nodes(newest: Capabilities) -> None:
    float32 = "float32"
    skip = OperatorUse(MS, "SkipSimplifiedLayerNormalization", 1, (float32,) * 3, (float32, "", "", float32))
    assert newest.serves(skip)
    assert newest.serves(OperatorUse("", "SimplifiedLayerNormalization", 21, (float32,) * 2, (float32,)))
    assert newest.serves(OperatorUse(MS, "RotaryEmbedding", 1, (float32, "int64", float32, float32), (float32,)))


def test_an_open_ended_kernel_does_not_serve_later_versions_of_its_operator(tool: ModuleType) -> None:
    versions = [tool.Schema(since, ("T",), ("T",)) for since in (1, 6, 13)]
    types = {"T": frozenset({"float32"})}

    def served(since: int, until: int) -> list[tuple[int, int]]:
        return [(each.since, each.until) for each in tool.spans(tool.Kernel(since, until, types), versions)]

    assert served(6, tool.OPEN) == [(6, 12)]
    assert served(1, 12) == [(1, 5), (6, 12)]
    assert served(13, tool.OPEN) == [(13, tool.OPEN)]


def test_merging_kernels_does_not_change_what_they_serve(tool: ModuleType) -> None:
    def kernel(first: str, second: str) -> object:
        return tool.Kernel(1, tool.OPEN, {"A": frozenset({first}), "B": frozenset({second})})

    pairs = [("float32", "int32"), ("float32", "int64"), ("float16", "int32"), ("float16", "int64"), ("bool", "bool")]
    merged = tool.merged(kernel(*pair) for pair in pairs)
    assert {(frozenset(k.types["A"]), frozenset(k.types["B"])) for k in merged} == {
        (frozenset({"float16", "float32"}), frozenset({"int32", "int64"})),
        (frozenset({"bool"}), frozenset({"bool"})),
    }
