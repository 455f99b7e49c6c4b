"""Experts in floating point become quantized ones that compute what their dequantized weights give."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from drupe.api import Context
from drupe_blockquant import Quantized, Scheme, dequantize_rows, quantize_rows
from drupe_ep_cpu.provider import Cpu
from drupe_nbits import (
    assign,
    expert_bytes,
    expert_refusal,
    expert_schemes,
    find_experts,
    keep_experts,
    quantize_experts,
)
from drupe_nbits.expressions import QuantizeIdentities
from drupe_onnx import (
    MICROSOFT,
    ROLE,
    Array,
    Concat,
    Files,
    Identities,
    Interleave,
    OnnxPackage,
    Reshape,
    as_type,
    initializer,
    ir,
    remove_unused,
    write_package,
)
from drupe_onnx.stored_weights import stored_weights

EXPERTS, HIDDEN, WIDTH, CHOSEN, TOKENS = 4, 64, 96, 2, 5
TARGET = Cpu().target()
RANDOM = np.random.default_rng(3)
UP = RANDOM.normal(0, 0.2, (EXPERTS, 2 * WIDTH, HIDDEN)).astype(np.float32)
DOWN = RANDOM.normal(0, 0.2, (EXPERTS, HIDDEN, WIDTH)).astype(np.float32)
BIASES = [RANDOM.normal(0, 0.2, (EXPERTS, size)).astype(np.float32) for size in (2 * WIDTH, HIDDEN)]
X = RANDOM.normal(0, 1, (TOKENS, HIDDEN)).astype(np.float32)
LOGITS = RANDOM.normal(0, 2, (TOKENS, EXPERTS)).astype(np.float32)


def experts(
    up: np.ndarray, down: np.ndarray, *, biases: bool = False, stored: ir.DataType = ir.DataType.FLOAT
) -> ir.Model:
    """A graph of one node, with the matrices as a builder has them: of each expert's gate and up, row after row."""
    kind = ir.DataType.FLOAT
    x, logits = ir.val("x", kind, ["T", HIDDEN]), ir.val("logits", kind, ["T", EXPERTS])
    woven = [Interleave((Array(each[::2]), Array(each[1::2]))) for each in up]
    given = [
        initializer(name, Reshape(as_type(Concat(parts), stored), shape))
        for name, parts, shape in (("up", woven, up.shape), ("down", [Array(each) for each in down], down.shape))
    ]
    vectors = [initializer(f"{name}_bias", Array(each)) for name, each in zip(("up", "down"), BIASES, strict=True)]
    nodes, matrices = [], given
    if stored != kind:
        casts = [
            ir.node("Cast", [each], {"to": kind}, outputs=[ir.val(f"{each.name}_f", kind, each.shape)])
            for each in given
        ]
        nodes, matrices = casts, [cast.outputs[0] for cast in casts]
    first, second = vectors if biases else (None, None)
    attributes = {
        "k": CHOSEN, "activation_type": "swiglu", "swiglu_fusion": 1, "activation_alpha": 1.0, "activation_beta": 0.0,
        "normalize_routing_weights": 1,
    }  # fmt: skip
    inputs = [x, logits, matrices[0], first, matrices[1], *([second] if biases else [])]
    node = ir.node(
        "MoE", inputs, attributes, domain=MICROSOFT, name="experts", outputs=[ir.val("y", kind, ["T", HIDDEN])],
        metadata_props={ROLE: "experts"},
    )  # fmt: skip
    graph = ir.Graph(
        [x, logits], node.outputs, nodes=[*nodes, node], initializers=[*given, *(vectors if biases else [])],
        opset_imports={"": 21, MICROSOFT: 1},
    )  # fmt: skip
    return ir.Model(graph, ir_version=10)


def result(model: ir.Model, folder: Path) -> np.ndarray:
    import onnxruntime

    folder.mkdir()
    write_package(OnnxPackage({"model": model}), folder, Context(TARGET, folder))
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X, "logits": LOGITS})[0]


def dequantized(tensor: np.ndarray, scheme: Scheme) -> np.ndarray:
    rows = tensor.reshape(-1, tensor.shape[-1])
    return dequantize_rows(quantize_rows(rows, scheme), scheme, rows.shape[1]).reshape(tensor.shape)


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(("bits", "symmetric"), [(4, True), (4, False), (8, True), (8, False)])
def test_quantized_experts_compute_with_the_dequantized_weights(
    bits: int, symmetric: bool, biases: bool, tmp_path: Path
) -> None:
    model = experts(UP, DOWN, biases=biases)
    [site] = find_experts(model.graph)
    scheme = Scheme(bits, 32, symmetric, "rtn")
    quantize_experts(model.graph, site, scheme, TARGET.capabilities)
    remove_unused(model)
    assert Counter(node.op_type for node in model.graph) == {"QMoE": 1}
    expected = result(experts(dequantized(UP, scheme), dequantized(DOWN, scheme), biases=biases), tmp_path / "float")
    found = result(model, tmp_path / "quantized")
    # The processor's kernel rounds activations to 8 bits.
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("kind", [ir.DataType.FLOAT, ir.DataType.FLOAT16])
@pytest.mark.parametrize(("bits", "symmetric"), [(2, True), (4, True), (4, False), (8, True), (8, False)])
def test_identity_matrices_are_written_exactly_and_are_no_weights(
    bits: int, symmetric: bool, kind: ir.DataType
) -> None:
    model = experts(UP, DOWN)
    [node] = model.graph
    identities = Identities(EXPERTS, HIDDEN, WIDTH, kind)
    ones = initializer("ones", Reshape(identities, (EXPERTS, HIDDEN, WIDTH)))
    model.graph.register_initializer(ones)
    node.replace_input_with(4, ones)
    [site] = find_experts(model.graph)
    scheme = Scheme(bits, 32, symmetric)
    assert [each.weight.name for each in site.weights] == ["up"]
    assert site.size == UP.size
    assert expert_bytes(site, scheme) == scheme.bytes_for(EXPERTS * 2 * WIDTH, HIDDEN, 4)
    producer = QuantizeIdentities(identities, scheme, kind)
    with Files() as files:
        written = Quantized(*producer.produce(0, identities.shape[0], files), *[None] * (1 + symmetric))
    values = dequantize_rows(written, scheme, WIDTH)
    np.testing.assert_array_equal(values.reshape(EXPERTS, HIDDEN, WIDTH), [np.eye(HIDDEN, WIDTH)] * EXPERTS)


def test_weights_behind_a_cast_are_quantized_from_their_stored_type() -> None:
    model = experts(UP, DOWN, stored=ir.DataType.BFLOAT16)
    [site] = find_experts(model.graph)
    assert site.up.rows.shape == (EXPERTS * 2 * WIDTH, HIDDEN)
    assert site.up.rows.dtype == ir.DataType.FLOAT  # the tensors before the cast to bfloat16
    quantize_experts(model.graph, site, Scheme(4, 32, True), TARGET.capabilities)
    remove_unused(model)
    assert [node.op_type for node in model.graph] == ["QMoE"]


def test_experts_that_stay_are_stored_in_the_type_that_the_graph_computes_in(tmp_path: Path) -> None:
    model = experts(UP, DOWN, stored=ir.DataType.BFLOAT16)
    keep_experts(model.graph, find_experts(model.graph)[0])
    remove_unused(model)
    assert [node.op_type for node in model.graph] == ["MoE"]
    np.testing.assert_allclose(
        result(model, tmp_path / "kept"), result(experts(UP, DOWN), tmp_path / "plain"), rtol=1e-4, atol=1e-4
    )


def test_blocks_must_divide_the_rows_of_both_matrices() -> None:
    [site] = find_experts(experts(UP, DOWN).graph)
    assert [each.block_size for each in expert_schemes(site, 4, False, None, TARGET.capabilities)] == [32, 16]
    assert "64" in (expert_refusal(site, Scheme(4, 64, True), TARGET.capabilities) or "")
    assert "2" in (expert_refusal(site, Scheme(2, 32, True), TARGET.capabilities) or "")
    assert expert_schemes(site, 2, False, None, TARGET.capabilities) == []


def test_an_assigned_scheme_is_the_only_one() -> None:
    model = experts(UP, DOWN)
    assign(model.graph.node("experts"), Scheme(8, 16, True))
    [site] = find_experts(model.graph)
    assert expert_schemes(site, 4, False, None, TARGET.capabilities) == [Scheme(8, 16, True)]


def test_the_table_of_stored_weights_shows_the_scheme_of_experts() -> None:
    model = experts(UP, DOWN)
    quantize_experts(model.graph, find_experts(model.graph)[0], Scheme(4, 32, False), TARGET.capabilities)
    remove_unused(model)
    line = next(each for each in stored_weights(model.graph) if each.role == "experts")
    assert line.scheme == "4 bits, blocks of 32"
    assert line.bytes == sum(
        Scheme(4, 32, False).bytes_for(EXPERTS * rows, columns, 4)
        for rows, columns in ((2 * WIDTH, HIDDEN), (HIDDEN, WIDTH))
    )


def test_experts_whose_weights_are_not_divided_by_their_sum_are_not_quantized() -> None:
    """The processor's QMoE divides by the sum even so."""
    model = experts(UP, DOWN)
    [node] = model.graph
    node.attributes["normalize_routing_weights"] = ir.AttrInt64("normalize_routing_weights", 0)
    [site] = find_experts(model.graph)
    assert expert_schemes(site, 4, False, None, TARGET.capabilities) == []
    assert "by their sum" in (expert_refusal(site, Scheme(4, 32, False), TARGET.capabilities) or "")
