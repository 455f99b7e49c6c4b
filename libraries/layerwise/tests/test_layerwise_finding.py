"""Blocks are found in graphs that do not mark them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drupe.api import Context, Target, replace
from drupe_layerwise import LayerByLayer, mark_blocks
from drupe_onnx import BLOCK


def unmarked(model: Any) -> tuple[Any, dict[str, str]]:
    """The model without its marks, and the former marks of its nodes with weights or attention."""
    marks = {node.name: node.metadata_props.pop(BLOCK, "") for node in model.graph}
    computing = {node.name for node in model.graph if node.op_type not in ("Cast", "GatherND", "Add", "Mul")}
    return model, {name: mark for name, mark in marks.items() if name in computing}


def marks_of(model: Any, names: Any) -> dict[str, str]:
    return {node.name: node.metadata_props.get(BLOCK, "") for node in model.graph if node.name in names}


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("model_type", ["llama", "qwen3", "granite"])
def test_the_found_blocks_equal_the_builders_marks(build: Callable[..., Any], model_type: str, blocks: int) -> None:
    sizes = {"embedding_multiplier": 3.0, "residual_multiplier": 0.5} if model_type == "granite" else {"head_dim": 16}
    model, wanted = unmarked(build(model_type, num_hidden_layers=blocks, **sizes))
    mark_blocks(model.graph)
    assert marks_of(model, wanted) == wanted


def test_blocks_are_found_if_sums_and_norms_are_separate_nodes(build: Callable[..., Any], target: Target) -> None:
    operators = {key: each for key, each in target.capabilities.operators.items() if "Skip" not in str(key)}
    plain = replace(target, capabilities=replace(target.capabilities, operators=operators))
    model, wanted = unmarked(build("llama", "float32", plain, num_hidden_layers=3))
    assert not any("Skip" in node.op_type for node in model.graph)
    mark_blocks(model.graph)
    assert marks_of(model, wanted) == wanted


def test_found_blocks_compute_the_same_as_the_whole_graph(
    build: Callable[..., Any],
    whole: Callable[..., Any],
    kit: SimpleNamespace,
    context: Context,
    sequences: list[list[int]],
) -> None:
    model, _ = unmarked(build("qwen3", num_hidden_layers=3, head_dim=16, tie_word_embeddings=True))
    with LayerByLayer(model, sequences, context) as layers:
        assert [segment.block for segment in layers.segments] == [None, 0, 1, 2, None]
        got = kit.joined(layers.logits(), len(sequences))
    wanted = whole(model, sequences[0], "logits")["logits"][0]
    np.testing.assert_allclose(got[0], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_blocks_are_found_with_another_exporters_cache_names(
    build: Callable[..., Any],
    whole: Callable[..., Any],
    kit: SimpleNamespace,
    context: Context,
    sequences: list[list[int]],
) -> None:
    model, wanted = unmarked(build("llama", num_hidden_layers=2, tie_word_embeddings=False))
    logits = whole(model, sequences[0], "logits")["logits"][0]
    for value in (*model.graph.inputs, *model.graph.outputs):
        kind, _, place = value.name.partition(".")
        layer, _, part = place.partition(".")
        value.name = f"{kind.removesuffix('_key_values')}_{part}_{layer}" if part else value.name
    with LayerByLayer(model, sequences, context) as layers:
        assert marks_of(model, wanted) == wanted
        got = kit.joined(layers.logits(), len(sequences))
    np.testing.assert_allclose(got[0], logits, rtol=0, atol=1e-5 * np.abs(logits).max())
