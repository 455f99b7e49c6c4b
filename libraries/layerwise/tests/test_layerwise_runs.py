"""Running a decoder block by block: the same values as from the whole graph, also after blocks were changed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import VOCABULARY

from drupe.api import Cancelled, Context, ModelError, Target, UsageError, replace
from drupe_layerwise import LayerByLayer, expert_groups
from drupe_onnx import BLOCK, Affine, expression_of, initializer, ir

Sequences = list[list[int]]
ARCHITECTURES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"num_hidden_layers": 3, "tie_word_embeddings": False}),
    ("qwen3", {"num_hidden_layers": 3, "head_dim": 16, "tie_word_embeddings": True}),
]
each_architecture = pytest.mark.parametrize(("model_type", "settings"), ARCHITECTURES, ids=["llama", "qwen3"])


def close(got: Any, wanted: Any) -> None:
    """Equal to 1e-5 of the largest value."""
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


def products(segment: Any) -> dict[str, Any]:
    """The segment's matrix products, by role."""
    marked = (node for node in segment.nodes if node.op_type in ("MatMul", "FusedMatMul"))
    return {node.metadata_props["drupe.role"]: node for node in marked}


@each_architecture
def test_logits_equal_those_of_the_whole_graph(
    build: Callable[..., Any],
    whole: Callable[..., Any],
    kit: SimpleNamespace,
    context: Context,
    sequences: Sequences,
    model_type: str,
    settings: dict[str, Any],
) -> None:
    model = build(model_type, **settings)
    with LayerByLayer(model, sequences, context) as layers:
        assert [segment.block for segment in layers.segments] == [None, 0, 1, 2, None]
        got = kit.joined(layers.logits(positions=5), len(sequences))
    for sequence, logits in zip(sequences, got, strict=True):
        close(logits, whole(model, sequence, "logits")["logits"][0])
    assert not list(context.scratch.iterdir())


@each_architecture
def test_collected_values_equal_the_inputs_of_each_blocks_products(
    build: Callable[..., Any],
    whole: Callable[..., Any],
    context: Context,
    sequences: Sequences,
    model_type: str,
    settings: dict[str, Any],
) -> None:
    model = build(model_type, **settings)
    with LayerByLayer(model, sequences, context) as layers:
        for segment in layers.segments[1:-1]:
            names = sorted({node.inputs[0].name for node in products(segment).values()})
            got: dict[str, list[Any]] = {name: [] for name in names}
            layers.collect(segment, names, lambda name, rows, got=got: got[name].append(rows))
            # The whole graph computes all tokens, so it has no value for the last token alone.
            kept = {name: name if "LastToken" not in name else name_of_whole(model, name) for name in names}
            wanted = [whole(model, sequence, *kept.values()) for sequence in sequences]
            for name in names:
                assert all(rows.dtype == np.float32 and rows.ndim == 2 for rows in got[name])
                close(np.concatenate(got[name]), np.concatenate([each[kept[name]][0] for each in wanted]))


def name_of_whole(model: Any, name: str) -> str:
    """The name of the input of the node that drops all tokens but the last."""
    (node,) = (node for node in model.graph if node.outputs[0].name == name)
    text: str = node.inputs[0].name
    return text


def test_a_changed_block_runs_with_its_change(
    build: Callable[..., Any],
    whole: Callable[..., Any],
    kit: SimpleNamespace,
    context: Context,
    sequences: Sequences,
) -> None:
    model = build("llama", **ARCHITECTURES[0][1])
    before = whole(model, sequences[0], "logits")["logits"][0]
    with LayerByLayer(model, sequences, context) as layers:
        block = layers.segments[2]
        node = products(block)["mlp.down"]
        name = node.inputs[0].name
        first: list[Any] = []
        layers.collect(block, [name], lambda _, rows: first.append(rows))
        expression = expression_of(products(block)["mlp.up"].inputs[1])
        assert expression is not None
        weight = initializer("doubled", Affine(expression, 2.0))
        model.graph.register_initializer(weight)
        products(block)["mlp.up"].replace_input_with(1, weight)
        second: list[Any] = []
        layers.collect(block, [name], lambda _, rows: second.append(rows))
        close(np.concatenate(second), 2 * np.concatenate(first))
        layers.advance(block)
        with pytest.raises(ValueError, match="was left by `advance`"):
            layers.collect(block, [name], lambda *_: None)
        got = kit.joined(layers.logits(), len(sequences))
    after = whole(model, sequences[0], "logits")["logits"][0]
    close(got[0], after)
    assert np.abs(after - before).max() > 1e-2


@each_architecture
def test_values_of_settled_nodes_are_not_computed_again(
    build: Callable[..., Any],
    whole: Callable[..., Any],
    kit: SimpleNamespace,
    context: Context,
    sequences: Sequences,
    model_type: str,
    settings: dict[str, Any],
) -> None:
    model = build(model_type, **settings)
    taken: list[set[str]] = []

    def watching(graph: Any) -> Any:
        session = context.open(graph)
        names = (value.name for value in session.graphs["model"].get_inputs())
        taken.append({name.split(".")[-2] for name in names if name.endswith("proj.weight")})
        return session

    watched = replace(context, open=watching)
    with LayerByLayer(model, sequences, context) as plain, LayerByLayer(model, sequences, watched) as layers:
        for segment, same in zip(layers.segments, plain.segments, strict=True):
            taken.clear()
            for name in dict.fromkeys(node.inputs[0].name for node in products(segment).values()):
                got: dict[bool, list[Any]] = {True: [], False: []}
                plain.collect(same, [name], lambda _, rows, got=got: got[False].append(rows))
                layers.collect(segment, [name], lambda _, rows, got=got: got[True].append(rows), settled=True)
                close(np.concatenate(got[True]), np.concatenate(got[False]))
            if segment is not layers.segments[-1]:
                plain.advance(same)
                layers.advance(segment)
            if segment.block:
                assert taken == [set(), {"qkv_proj"}, {"o_proj"}, {"gate_proj", "up_proj"}, {"down_proj"}]
        logits = kit.joined(layers.logits(), len(sequences))
    for sequence, own in zip(sequences, logits, strict=True):
        close(own, whole(model, sequence, "logits")["logits"][0])
    assert not list(context.scratch.iterdir())


def test_the_next_blocks_get_the_values_of_quantized_products(
    build: Callable[..., Any],
    whole: Callable[..., Any],
    kit: SimpleNamespace,
    context: Context,
    sequences: Sequences,
) -> None:
    from drupe_blockquant import Scheme
    from drupe_nbits import Rewriter, find_sites

    model = build("qwen3", **ARCHITECTURES[1][1])
    with LayerByLayer(model, sequences, context) as layers:
        rewriter = Rewriter(model.graph, context.target.capabilities)
        for segment in layers.segments[1:-1]:
            inside = set(segment.nodes)
            for site in [site for site in find_sites(model.graph) if site.node in inside]:
                rewriter.rewrite(site, Scheme(4, 32, False))
            assert "MatMulNBits" in {node.op_type for node in segment.nodes}
            layers.advance(segment)
        got = kit.joined(layers.logits(), len(sequences))
    for sequence, logits in zip(sequences, got, strict=True):
        close(logits, whole(model, sequence, "logits")["logits"][0])


def test_only_the_weights_of_one_segment_are_written_at_a_time(
    build: Callable[..., Any], context: Context, sequences: Sequences
) -> None:
    sizes: list[int] = []

    def measuring(model: Any) -> Any:
        sizes.append(sum(path.stat().st_size for path in model.location.rglob("*")))
        assert sum(1 for _ in context.scratch.glob("*/graph-*")) == 1
        return context.open(model)

    model = build("llama", **{**ARCHITECTURES[0][1], "num_hidden_layers": 8})
    every = sum(
        expression.nbytes for value in model.graph.initializers.values() if (expression := expression_of(value))
    )
    with LayerByLayer(model, sequences, replace(context, open=measuring)) as layers:
        for segment in layers.segments:
            layers.advance(segment)
        assert not list(context.scratch.glob("*/graph-*"))
    assert len(sizes) == 9 and max(sizes) < every / 3


def test_graphs_in_half_precision_run(
    build: Callable[..., Any],
    whole: Callable[..., Any],
    kit: SimpleNamespace,
    context: Context,
    sequences: Sequences,
    target: Target,
) -> None:
    table = replace(target.capabilities, activations=("float16",))
    half = replace(target, capabilities=table)
    model = build("llama", "float16", half, **ARCHITECTURES[0][1])
    with LayerByLayer(model, sequences, context) as layers:
        got = kit.joined(layers.logits(), len(sequences))
    assert got[0].dtype == np.float32
    wanted = whole(model, sequences[0], "logits")["logits"][0]
    np.testing.assert_allclose(got[0], wanted, rtol=0, atol=2e-2 * np.abs(wanted).max())


def test_a_graph_for_another_device_with_norms_inside_attention_runs(
    build: Callable[..., Any],
    whole: Callable[..., Any],
    kit: SimpleNamespace,
    context: Context,
    sequences: Sequences,
    target: Target,
) -> None:
    from drupe_ep_cuda.provider import Cuda

    elsewhere = replace(Cuda().target(), device=None)
    half = replace(target, capabilities=replace(target.capabilities, activations=("float16",)))
    model, same = (build("qwen3", "float16", each, **ARCHITECTURES[1][1]) for each in (elsewhere, half))
    assert any(node.op_type == "GroupQueryAttention" and len(node.inputs) == 16 for node in model.graph)
    with LayerByLayer(model, sequences, replace(context, target=elsewhere)) as layers:
        got = kit.joined(layers.logits(), len(sequences))
    wanted = whole(same, sequences[0], "logits")["logits"][0]
    np.testing.assert_allclose(got[0], wanted, rtol=0, atol=2e-2 * np.abs(wanted).max())


def test_weights_cast_at_run_time_are_not_stored_as_values_between_blocks(
    build: Callable[..., Any],
    whole: Callable[..., Any],
    kit: SimpleNamespace,
    context: Context,
    sequences: Sequences,
) -> None:
    model = build("qwen3", "bfloat16", **ARCHITECTURES[1][1])
    assert any(node.op_type == "Cast" and node.inputs[0].is_initializer() for node in model.graph)
    with LayerByLayer(model, sequences, context) as layers:
        layers.advance(layers.segments[0])
        size = sum(path.stat().st_size for path in context.scratch.rglob("values/*"))
        assert size < 3 * 4 * sum(map(len, sequences)) * 64
        got = kit.joined(layers.logits(), len(sequences))
    close(got[2], whole(model, sequences[2], "logits")["logits"][0])


def test_logits_are_computed_in_pieces_that_fit_the_memory_budget(
    build: Callable[..., Any], context: Context, sequences: Sequences
) -> None:
    small = replace(context, memory_budget=3 * 8 * 512)
    model = build("llama", **ARCHITECTURES[0][1])
    with LayerByLayer(model, sequences, small) as layers:
        assert [len(chunk.rows) for chunk in layers.logits()] == [3, 3, 1, 3, 3, 1, 3, 3, 3, 3, 1]


def test_matrices_and_tables_are_passed_as_inputs_and_not_written_to_disk(
    build: Callable[..., Any],
    whole: Callable[..., Any],
    kit: SimpleNamespace,
    context: Context,
    sequences: Sequences,
) -> None:
    taken: list[list[str]] = []
    written: list[str] = []

    def counting(model: Any) -> Any:
        session = context.open(model)
        taken.append([value.name for value in session.graphs["model"].get_inputs()])
        written.extend(ir.load(model.location / "model.onnx").graph.initializers)
        return session

    for settings in (each for _, each in ARCHITECTURES):
        model = build("qwen3", **settings)
        small = replace(context, memory_budget=4096, open=counting)
        with LayerByLayer(model, sequences, small) as layers:
            got = kit.joined(layers.logits(positions=5), len(sequences))
        assert any("embed_tokens" in name for name in taken[0]), "the rows of the tokens are inputs"
        assert any("down_proj" in name for name in taken[1]), "the matrices of a block are inputs"
        assert len(taken[-1]) == 2, "the inputs are the hidden rows and a range of the head's matrix"
        assert not any("embed_tokens" in name or "proj.weight" in name for name in written)
        close(got[2], whole(model, sequences[2], "logits")["logits"][0])


@each_architecture
def test_a_head_computed_in_ranges_gives_the_logits_of_the_whole_graph(
    build: Callable[..., Any],
    whole: Callable[..., Any],
    kit: SimpleNamespace,
    context: Context,
    sequences: Sequences,
    model_type: str,
    settings: dict[str, Any],
) -> None:
    """Neither the sizes of the ranges of the vocabulary nor those of the groups of tokens divide evenly."""
    model = build(model_type, **settings)
    small = replace(context, memory_budget=13 * 4 * VOCABULARY)
    with LayerByLayer(model, sequences, small) as layers:
        chunks = list(layers.logits(positions=5))
    assert [len(chunk.rows) for chunk in chunks[:3]] == [5, 2, 5]
    got = kit.joined(iter(chunks), len(sequences))
    for sequence, rows in zip(sequences, got, strict=True):
        close(rows, whole(model, sequence, "logits")["logits"][0])


def test_a_cancelled_run_stops_and_leaves_no_files(
    build: Callable[..., Any], context: Context, sequences: Sequences
) -> None:
    model = build("llama", **ARCHITECTURES[0][1])
    with pytest.raises(Cancelled), LayerByLayer(model, sequences, context) as layers:
        for segment in layers.segments:
            layers.advance(segment)
            if segment.index == 2:
                context.cancelled.set()
    assert not list(context.scratch.iterdir())


def test_bad_input_is_refused(build: Callable[..., Any], context: Context, sequences: Sequences) -> None:
    model = build("llama", **ARCHITECTURES[0][1])
    with pytest.raises(UsageError, match="no text"):
        LayerByLayer(model, [], context)
    with pytest.raises(UsageError, match="sequences of 5000 tokens do not fit into the model's context of"):
        LayerByLayer(model, [[1] * 5000], context)
    with LayerByLayer(model, sequences, context) as layers, pytest.raises(ValueError, match="no value 'nothing'"):
        layers.collect(layers.segments[1], ["nothing"], lambda *_: None)
    for node in model.graph:
        node.metadata_props.pop(BLOCK, None)
        node.op_type = "Identity" if "Attention" in node.op_type else node.op_type
    for value in model.graph.inputs:
        value.name = value.name.replace("past_key_values", "memory")
    with pytest.raises(ModelError, match="no decoder blocks"):
        LayerByLayer(model, sequences, context)


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("qwen3_moe", {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "head_dim": 16}),
        ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16,
                       "norm_topk_prob": True}),
        ("gpt_oss", {"num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 16}),
        ("gemma4_text", {"num_experts": 5, "top_k_experts": 2, "moe_intermediate_size": 16, "enable_moe_block": True,
                         "hidden_size_per_layer_input": 0, "head_dim": 16, "global_head_dim": 16}),
        ("llama4_text", {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size_mlp": 48,
                         "head_dim": 16}),
    ],
)  # fmt: skip
def test_experts_that_do_not_fit_are_run_in_groups_with_the_same_results(
    build: Callable[..., Any],
    kit: SimpleNamespace,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    sequences: Sequences,
    model_type: str,
    settings: dict[str, Any],
) -> None:
    """A budget of a byte makes each expert a group; a larger one groups of two, the last of which overlaps."""
    found: list[list[Any]] = []
    for budget in (context.memory_budget, 60_000, 1):
        monkeypatch.setattr(expert_groups, "SHARE", int(budget == context.memory_budget))
        limited = replace(context, memory_budget=budget)
        with LayerByLayer(build(model_type, num_hidden_layers=2, **settings), sequences, limited) as layers:
            block = layers.segments[1]
            nodes = [node for node in block.nodes if node.op_type == "MoE"]
            seen: list[Any] = []
            for name in [value.name for node in nodes for value in (node.inputs[0], node.outputs[0])]:
                layers.collect(block, [name], lambda _, rows, seen=seen: seen.append(rows))
            found.append([*seen, *kit.joined(layers.logits(positions=50), len(sequences))])
    for other in found[1:]:
        for got, wanted in zip(other, found[0], strict=True):
            close(got, wanted)
