"""Experts: their arithmetic is the operator's, and each expert is given the rows that the router sends to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drupe.api import Context
from drupe_layerwise import LayerByLayer, RoutedRows, Routing, expert_activation
from drupe_onnx import Files, constant_of, ir

HIDDEN, WIDTH, EXPERTS, ROWS = 8, 6, 5, 40
SWIGLU = {"activation_type": "swiglu", "swiglu_fusion": 1}
ATTRIBUTES: list[dict[str, Any]] = [
    {},  # relu
    {"activation_type": "identity", "k": 2},
    {"activation_type": "silu", "k": 2, "normalize_routing_weights": 1},
    {"activation_type": "gelu"},
    {**SWIGLU, "k": 3, "normalize_routing_weights": 1},
    {**SWIGLU, "activation_alpha": 1.7, "activation_beta": 1.0, "swiglu_limit": 0.5},
]


def node_of(**attributes: Any) -> ir.Node:
    return ir.Node("com.microsoft", "MoE", [], ir.convenience.convert_attributes(attributes))


@pytest.mark.parametrize("attributes", ATTRIBUTES, ids=str)
def test_the_arithmetic_is_that_of_the_operator(attributes: dict[str, Any]) -> None:
    import onnxruntime
    from onnx import TensorProto, helper

    random = np.random.default_rng(2)
    first = 2 * WIDTH if "swiglu_fusion" in attributes else WIDTH
    shapes = {"x": (ROWS, HIDDEN), "logits": (ROWS, EXPERTS), "up": (EXPERTS, first, HIDDEN), "bias": (EXPERTS, first),
              "down": (EXPERTS, HIDDEN, WIDTH)}  # fmt: skip
    given = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, (ROWS, HIDDEN))
    moe = helper.make_node("MoE", list(shapes), ["y"], domain="com.microsoft", **attributes)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([moe], "g", inputs, [result]), opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, given)

    routing, activation = Routing.of(node_of(**attributes)), expert_activation(node_of(**attributes))
    assert routing is not None
    assert activation is not None
    weights = routing.weights(given["logits"])
    assert ((weights > 0).sum(1) == routing.chosen).all()
    found = np.zeros_like(wanted)
    for expert in range(EXPERTS):
        inner = activation(given["x"] @ given["up"][expert].T + given["bias"][expert])
        found += weights[:, expert, None] * (inner @ given["down"][expert].T)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0)


@pytest.mark.parametrize(
    "attributes", [{"activation_type": "swiglu", "swiglu_fusion": 2}, {"activation_type": "new"}], ids=str
)
def test_an_activation_that_is_not_known_is_not_guessed(attributes: dict[str, Any]) -> None:
    assert expert_activation(node_of(**attributes)) is None


def test_a_routing_that_is_not_known_is_not_guessed() -> None:
    assert Routing.of(node_of(use_sparse_mixer=1, k=2)) is None


def test_the_rows_of_each_expert_make_the_result_of_the_node(build: Callable[..., Any], context: Context) -> None:
    model = build("mixtral", num_local_experts=4, num_experts_per_tok=2, intermediate_size=24, num_hidden_layers=1)
    sequences = [[3, 9, 4, 11, 2, 30], [8, 1, 7], [5, 5, 6, 20, 21, 3]]
    with LayerByLayer(model, sequences, context) as layers, Files() as files:
        block = layers.segments[1]
        node = next(node for node in block.nodes if node.op_type == "MoE")
        wanted: list[Any] = []
        layers.collect(block, {node.outputs[0].name or ""}, lambda _, rows: wanted.append(rows))
        up, down = (constant_of(node.inputs[place]).value(files) for place in (2, 4))  # type: ignore[union-attr]
        activation, routing = expert_activation(node), Routing.of(node)
        assert activation is not None
        assert routing is not None

        rows = RoutedRows(layers, block, node, routing)
        assert rows.total == 15
        assert rows.reached.sum() == 30
        parts: list[list[Any]] = [[] for _ in range(4)]
        every: list[Any] = []
        rows.all(every.append)
        rows.of([1, 3], lambda expert, own, weights: parts[expert].append((own, weights)))
        rows.of([0, 2], lambda expert, own, weights: parts[expert].append((own, weights)))
    x, total = np.concatenate(every), np.zeros_like(np.concatenate(wanted))
    for expert, batches in enumerate(parts):
        assert sum(len(own) for own, _ in batches) == rows.reached[expert]
        for own, weights in batches:
            places = [int(np.flatnonzero((x == row).all(1))[0]) for row in own]
            np.add.at(total, places, weights * (activation(own @ up[expert].T) @ down[expert].T))
    firsts = np.array([int(np.flatnonzero((x == row).all(1))[0]) for row in x])
    alone = np.bincount(firsts, minlength=len(x))[firsts] == 1  # equal rows would be counted at the first of them
    assert alone.any()
    np.testing.assert_allclose(total[alone], np.concatenate(wanted)[alone], atol=1e-5, rtol=1e-4)


def test_a_sample_has_rows_of_all_sequences_once_each(build: Callable[..., Any], context: Context) -> None:
    model = build("mixtral", num_local_experts=4, num_experts_per_tok=2, intermediate_size=24, num_hidden_layers=1)
    with LayerByLayer(model, [[*range(3, 63)], [*range(63, 96)]], context) as layers:
        block = layers.segments[1]
        node = next(node for node in block.nodes if node.op_type == "MoE")
        routing = Routing.of(node)
        assert routing is not None
        rows = RoutedRows(layers, block, node, routing)
        every: list[Any] = []
        rows.all(every.append)
        sample, x = rows.sample(40), np.concatenate(every)
        places = [int(np.flatnonzero((x == row).all(1))[0]) for row in sample]
        assert places == sorted(set(places))
        assert len(places) == 40
        assert places[0] < 60 <= places[-1]
        np.testing.assert_array_equal(rows.sample(1000), x)
