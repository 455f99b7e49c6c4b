"""Rotation: it is orthogonal, can be computed in pieces, leaves a model's output as it is, and removes outliers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drupe.api import Context, ModelError, Target
from drupe_blockquant import Scheme, dequantize_rows, quantize_rows
from drupe_equalize.expressions import Diagonal, Rotated, RotatedOutputs, ScaledRows
from drupe_equalize.hadamard import hartley, random_signs, rotate
from drupe_equalize.rotate_weights import RotateWeights, RotateWeightsConfig, rotate_graph
from drupe_nbits import find_sites
from drupe_onnx import Array, Expression, Files, fingerprint, from_json, initializer, ir, to_json

RNG = np.random.default_rng(1)


def rotation(length: int) -> np.ndarray:
    """The rotation Q as a matrix."""
    out = np.empty((length, length, 1), np.float32)
    rotate(np.eye(length, dtype=np.float32)[:, :, None], random_signs(length, 3), out)
    return out[:, :, 0]


@pytest.mark.parametrize("length", [1, 2, 7, 16, 45, 64, 96, 896, 67, 134])
def test_a_rotation_is_orthogonal_and_spreads_each_value_over_all_channels(length: int) -> None:
    matrix = rotation(length)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(length), atol=1e-5)
    spread = length & -length if length // (length & -length) > 64 else length
    assert np.abs(matrix).max() <= (2 / spread) ** 0.5 + 1e-6


def test_powers_of_two_are_rotated_by_sylvesters_matrix() -> None:
    sylvester = np.array([[1, 1], [1, -1]]) / 2**0.5
    expected = np.diag(random_signs(8, 3)) @ np.kron(sylvester, np.kron(sylvester, sylvester))
    np.testing.assert_allclose(rotation(8), expected, atol=1e-6)
    np.testing.assert_allclose(hartley(5) @ hartley(5), np.eye(5), atol=1e-6)


N, K = 24, 40
MATRIX = RNG.normal(0, 1, (N, K)).astype(np.float32)
EXPRESSIONS: dict[str, tuple[Expression, np.ndarray]] = {
    "rotated": (Rotated(Array(MATRIX), Array(random_signs(K, 3))), MATRIX @ rotation(K)),
    "rotated-outputs": (RotatedOutputs(Array(MATRIX), Array(random_signs(N, 3))), rotation(N).T @ MATRIX),
    "scaled-rows": (ScaledRows(Array(MATRIX), Array(MATRIX[:, 0])), MATRIX * MATRIX[:, :1]),
    "diagonal": (Diagonal(Array(MATRIX[0])), np.diag(MATRIX[0])),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_reading_an_expression_in_any_pieces_gives_the_whole(name: str) -> None:
    expression, expected = EXPRESSIONS[name]
    rows, columns = expression.shape
    with Files(reuse=True) as files:
        whole = expression.value(files).copy()
        np.testing.assert_allclose(whole, expected, atol=1e-5)
        for start, stop in ((0, 1), (3, 17), (rows - 1, rows)):
            np.testing.assert_array_equal(expression.rows(start, stop, files), whole[start:stop])
        for start, stop in ((0, 1), (5, 23), (columns - 1, columns)):
            np.testing.assert_array_equal(expression.columns(start, stop, files), whole[:, start:stop])


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_rotated_expressions_from_json_are_equal(name: str) -> None:
    expression, _ = EXPRESSIONS[name]
    again = from_json(to_json(expression))
    assert again == expression
    assert fingerprint(again) == fingerprint(expression)


def test_a_rotation_holds_only_a_band_of_columns_in_memory() -> None:
    """The memory is much less than the matrix takes."""
    large = RotatedOutputs(Array(np.broadcast_to(np.float32(0), (4096, 12288))), Array(random_signs(4096, 0)))
    assert large.working_bytes(64) < 0.3 * large.nbytes


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama-biases": ("llama", {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {"sliding_window": None, "tie_word_embeddings": False}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3-tied": ("qwen3", {"tie_word_embeddings": True, "head_dim": 32}),
    "qwen3-odd": ("qwen3", {"tie_word_embeddings": False, "hidden_size": 72, "head_dim": 16}),
    "few-tokens": ("qwen2", {"tie_word_embeddings": True, "hidden_size": 640, "num_hidden_layers": 1}),
    "granite-scales": (
        "granite",
        {"embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.4, "tie_word_embeddings": True},
    ),
    "experts-shared": (
        "qwen2_moe",
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 48,
            "shared_expert_intermediate_size": 32,
        },
    ),
    "experts-biases": ("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_rotated_model_has_the_same_output(name: str, kit: SimpleNamespace, cpu: Target, tmp_path: Path) -> None:
    kind, settings = MODELS[name]
    folder = kit.checkpoint(kind, **settings)
    before = kit.logits(kit.build(folder, cpu), cpu, tmp_path / "before")
    assert before.std() > 0.1  # otherwise equal logits would prove nothing
    model = kit.build(folder, cpu)
    weights = {site.name: site.rows for site in find_sites(model.payload.component.graph)}
    RotateWeights().run(model, RotateWeightsConfig(), Context(cpu, tmp_path, seed=5))
    rotated = {site.name: site.rows for site in find_sites(model.payload.component.graph)}
    assert all(rotated.get(name) != rows for name, rows in weights.items())
    after = kit.logits(model, cpu, tmp_path / "after")
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max(), rtol=0)


def test_last_token_graphs_are_rotated_too(kit: SimpleNamespace, cpu: Target, tmp_path: Path) -> None:
    folder = kit.checkpoint("qwen3", tie_word_embeddings=True, head_dim=32)
    before = kit.logits(kit.build(folder, cpu, all_logits=False), cpu, tmp_path / "before")
    model = kit.build(folder, cpu, all_logits=False)
    RotateWeights().run(model, RotateWeightsConfig(), Context(cpu, tmp_path))
    np.testing.assert_allclose(kit.logits(model, cpu, tmp_path / "after"), before, atol=1e-4 * np.abs(before).max())


def test_a_tied_head_stays_shared_if_that_takes_fewer_bytes(kit: SimpleNamespace, cpu: Target) -> None:
    """Sharing needs an added hidden x hidden matrix of 8 bits, which is larger than the head if tokens are few."""
    for hidden, shares in ((64, True), (640, False)):
        settings = {"num_hidden_layers": 1} if hidden == 640 else {}
        folder = kit.checkpoint("qwen2", tie_word_embeddings=True, hidden_size=hidden, **settings)
        graph = kit.build(folder, cpu).payload.component.graph
        count = len(find_sites(graph))
        rotate_graph(graph, 0, cpu)
        sites = find_sites(graph)
        look_up, head = sites[0], next(site for site in sites if site.role == "head")
        assert (look_up.weight is head.weight) is shares
        added = [site for site in sites if site.scheme is not None]
        assert len(sites) - count == len(added) == int(shares)
        assert all(site.scheme and site.scheme.bits == 8 and site.rows.shape == (hidden, hidden) for site in added)


def test_different_seeds_give_different_rotations(kit: SimpleNamespace, cpu: Target) -> None:
    folder = kit.checkpoint("llama", tie_word_embeddings=False)

    def rows(seed: int) -> list[Expression]:
        graph = kit.build(folder, cpu).payload.component.graph
        rotate_graph(graph, seed, cpu)
        return [site.rows for site in find_sites(graph)]

    assert rows(1) == rows(1)
    assert rows(1) != rows(2)


def test_rotation_lowers_the_error_of_four_bits_if_one_channel_is_large() -> None:
    weights = RNG.normal(0, 1, (64, 256)).astype(np.float32)
    weights[:, 17] *= 50
    scheme = Scheme(4, 128, False, "search")

    def error(matrix: np.ndarray) -> float:
        made = quantize_rows(matrix, scheme)
        again = dequantize_rows(made, scheme, matrix.shape[1])
        return float(np.square(again - matrix).sum())

    with Files() as files:
        rotated = Rotated(Array(weights), Array(random_signs(256, 0))).value(files)
    assert error(rotated) < 0.5 * error(weights)


def stream_through(operator: str, domain: str = "") -> ir.Graph:
    """A graph of an embedding, a node of `operator`, and a product of its output."""
    ids = ir.Value(name="ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["T"]))
    table = initializer("table", Array(RNG.normal(0, 1, (10, 8)).astype(np.float32)))
    vector = initializer("vector", Array(np.ones(8, np.float32)))
    matrix = initializer("matrix", Array(RNG.normal(0, 1, (8, 10)).astype(np.float32)))
    look_up = ir.Node("", "Gather", [table, ids], name="look-up")
    inner = ir.Node(domain, operator, [look_up.outputs[0], vector, vector][: 2 + ("Layer" in operator)], name="inner")
    product = ir.Node("", "MatMul", [inner.outputs[0], matrix], name="product")
    for node in (look_up, inner, product):
        node.outputs[0].name, node.outputs[0].type = f"{node.name}/out", ir.TensorType(ir.DataType.FLOAT)
    weights = [table, vector, matrix]
    return ir.Graph(
        [ids], product.outputs, nodes=[look_up, inner, product], initializers=weights, opset_imports={"": 21}
    )


@pytest.mark.parametrize("operator", ["LayerNormalization", "Mul", "Softmax"])
def test_the_error_for_a_node_that_blocks_the_rotation_names_it(operator: str, cpu: Target) -> None:
    graph = stream_through(operator)
    before = [site.rows for site in find_sites(graph)]
    with pytest.raises(ModelError, match=rf"inner.*{operator}") as caught:
        rotate_graph(graph, 0, cpu)
    assert caught.value.cure
    assert [site.rows for site in find_sites(graph)] == before


def test_a_graph_without_an_embedding_is_refused(cpu: Target) -> None:
    with pytest.raises(ModelError, match="embedding"):
        rotate_graph(ir.Graph([], [], nodes=[], opset_imports={"": 21}), 0, cpu)
