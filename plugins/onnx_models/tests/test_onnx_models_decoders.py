"""Decoders from every exporter: their parts are recognised, and adopted graphs give the same logits."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from drupe.api import ModelError
from drupe_nbits import find_sites
from drupe_onnx import BLOCK, ROLE, OnnxKind, all_logits, ir

QKV, OUTPUT, GATE, UP, DOWN = "attention.qkv", "attention.output", "mlp.gate", "mlp.up", "mlp.down"
EXACT = ("torch", "torch-tied", "torch-last", "genai-fp32", "genai-last", "genai-int4", "genai-int4-tied")
HALF = ("torch-half", "genai-half", "genai-int4-half")


def graph_of(model):
    return model.payload.component.graph


@pytest.mark.parametrize("name", EXACT)
def test_an_adopted_graph_gives_the_logits_of_its_source(name, made, written, kit):
    sizes = {"head_size": 32 if name.endswith("int4-tied") else 16}
    ours, theirs = (kit.logits(path, **sizes) for path in (written(made(name)), made(name) / "model.onnx"))
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize("name", HALF)
def test_a_graph_in_float16_computes_in_float32_if_the_target_does(name, made, written, kit):
    path = written(made(name))
    theirs = kit.logits(made(name) / "model.onnx")
    assert np.abs(kit.logits(path) - theirs).max() < 2e-3 * np.abs(theirs).max()
    types = {each.name: each.type for each in kit.Plain(OnnxKind().load(_model(path))).opened.get_inputs()}
    assert types["past_key_values.0.key"] == "tensor(float)"


def _model(path: Path):
    from drupe.api import Model

    return Model("onnx", path)


def test_float16_weights_stay_float16_in_the_file_unless_weights_is_set(made, written):
    def nbytes(**config):
        return sum(each.stat().st_size for each in written(made("torch-half"), **config).parent.iterdir())

    assert nbytes() < 0.6 * nbytes(weights="float32")
    assert nbytes() == pytest.approx(nbytes(weights="float16"), rel=0.02)


def test_matrices_are_stored_in_the_requested_type_and_cast_to_float32(made, written, kit):
    path = written(made("torch"), weights="float16")
    theirs = kit.logits(made("torch") / "model.onnx")
    assert 0 < np.abs(kit.logits(path) - theirs).max() < 2e-3 * np.abs(theirs).max()


@pytest.mark.parametrize("name", ["torch", "genai-fp32", "genai-half"])
def test_products_get_the_same_roles_and_blocks_as_from_the_model_builder(name, made, adopt):
    sites = find_sites(graph_of(adopt(made(name))))
    found = Counter((site.role, site.node.metadata_props.get(BLOCK)) for site in sites)
    qkv = 3 if name == "torch" else 1
    expected = {("embedding", None): 1, ("head", None): 1}
    for block in ("0", "1"):
        expected |= {(QKV, block): qkv, (OUTPUT, block): 1, (GATE, block): 1, (UP, block): 1, (DOWN, block): 1}
    assert found == expected


def test_the_rows_of_a_site_are_expressions_of_external_data_that_was_not_read(made, adopt):
    for site in find_sites(graph_of(adopt(made("genai-fp32")))):
        sources = [each for each in (site.rows, *site.rows.inputs) if not each.inputs]
        assert [type(each).__name__ for each in sources] == ["ExternalTensor"]


def test_norms_made_of_several_nodes_become_one_operator(made, adopt):
    operators = Counter(node.op_type for node in graph_of(adopt(made("torch"))))
    assert operators["SimplifiedLayerNormalization"] == 5
    assert not operators["Pow"] and not operators["ReduceMean"]


def test_every_value_has_a_type(made, adopt):
    untyped = [value.name for node in graph_of(adopt(made("torch"))) for value in node.outputs if value.dtype is None]
    assert untyped == []


def test_a_tied_head_is_stored_once_if_it_was_a_copy_or_a_transpose(made, adopt, tmp_path):
    graph = graph_of(adopt(made("torch-tied")))
    assert [node.op_type for node in graph if node.metadata_props.get(ROLE) == "head"] == ["FusedMatMul"]
    transposed = transpose_the_head(made("torch-tied"), tmp_path / "transposed")
    for each in (graph, graph_of(adopt(transposed))):
        embedding, *_, head = find_sites(each)
        assert (embedding.role, head.role) == ("embedding", "head")
        assert embedding.weight is head.weight


def transpose_the_head(source: Path, folder: Path) -> Path:
    """Like optimum for shared weights: the head is a Transpose of the embedding."""
    model = onnx.load(source / "model.onnx")
    head = next(node for node in model.graph.node if "logits" in node.output)
    embedding = next(
        node.input[0] for node in model.graph.node if "input_ids" in node.input and node.op_type == "Gather"
    )
    model.graph.initializer.remove(next(each for each in model.graph.initializer if each.name == head.input[1]))
    head.input[1] = "transposed"
    model.graph.node.insert(0, onnx.helper.make_node("Transpose", [embedding], ["transposed"], perm=[1, 0]))
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    (folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    return folder


def test_tokens_may_be_reshaped_before_the_embedding(made, adopt, tmp_path):
    model = onnx.load(made("torch") / "model.onnx")
    gather = next(node for node in model.graph.node if "input_ids" in node.input and node.op_type == "Gather")
    gather.input[1] = "flat"
    helper = onnx.helper
    before = [
        helper.make_node("Shape", ["input_ids"], ["ids_shape"]),
        helper.make_node("Constant", [], ["one"], value_int=1),
        helper.make_node("Constant", [], ["any"], value_ints=[-1]),
        helper.make_node("Constant", [], ["first"], value_ints=[0]),
        helper.make_node("Gather", ["ids_shape", "one"], ["length"], axis=0),
        helper.make_node("Unsqueeze", ["length", "first"], ["length_1"]),
        helper.make_node("Concat", ["any", "length_1"], ["kept"], axis=0),
        helper.make_node("Reshape", ["input_ids", "kept"], ["flat"]),
    ]
    for place, node in enumerate(before):
        model.graph.node.insert(place, node)
    onnx.save(model, tmp_path / "model.onnx")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((made("torch") / name).read_bytes())
    site = find_sites(graph_of(adopt(tmp_path / "model.onnx")))[0]
    assert (site.role, site.activations.name) == ("embedding", "input_ids")


@pytest.mark.parametrize("name", ["torch-last", "genai-last"])
def test_the_node_that_selects_the_last_token_is_marked_so_that_the_twin_can_leave_it_out(
    name, made, adopt, context, tmp_path, kit
):
    from drupe_onnx import OnnxPackage, write_package

    model = adopt(made(name))
    assert model.facts["logits"] == "last"
    (tmp_path / "twin").mkdir()
    write_package(OnnxPackage({"model": all_logits(model.payload.component)}), tmp_path / "twin", context)
    rows = kit.logits(tmp_path / "twin" / "model.onnx")
    assert len(rows) == 7
    assert np.abs(rows[[4, 5, 6]] - kit.logits(made(name) / "model.onnx")).max() < 1e-4


@pytest.mark.parametrize("name", ["genai-int4", "genai-int4-half", "genai-int4-tied"])
def test_quantized_matrices_keep_their_levels_scales_and_zero_points(name, made, written):
    def constants(path: Path):
        model = ir.load(path)
        tensors = {value.name: value.const_value.numpy() for value in model.graph.initializers.values()}
        return {node.name: [tensors.get(each.name if each else "") for each in node.inputs[1:4]] for node in model.graph
                if node.op_type == "MatMulNBits"}  # fmt: skip

    ours, theirs = constants(written(made(name))), constants(made(name) / "model.onnx")
    assert ours.keys() == theirs.keys() and len(ours) > 8
    for node, parts in ours.items():
        for mine, other in zip(parts, theirs[node], strict=True):
            if mine is not None and other is not None:  # scales of another type are read through a Cast
                assert mine.dtype == other.dtype and (mine == other).all()
        assert parts[0] is not None


def test_scales_of_a_float16_graph_stay_float16_in_the_file(made, written):
    graph = ir.load(written(made("genai-int4-half"))).graph
    products = [node for node in graph if node.op_type == "MatMulNBits"]
    stored = {node.inputs[2].producer().inputs[0].dtype for node in products}
    assert stored == {ir.DataType.FLOAT16}


def test_norms_inside_attention_become_nodes_if_the_target_lacks_them(made, adopt, cpu):
    model = adopt(made("genai-norms-inside"))
    assert OnnxKind().check(model, cpu) == ()


@pytest.mark.parametrize("name", ["torch", "genai-fp32"])
def test_a_decoder_is_described_from_its_graph_and_the_files_beside_it(name, made, adopt):
    found = adopt(made(name)).payload.decoder
    assert (found.model_type, found.hidden_size, found.layers, found.heads) == ("llama", 64, 2, 4)
    assert (found.kv_heads, found.head_dim, found.vocab_size, found.context_length) == (2, 16, 512, 256)
    assert (found.activations, found.kv_dtype, found.bos, found.eos) == ("float32", "float32", 0, (1,))


def test_search_settings_of_genai_config_become_a_generation_config(made, adopt):
    files = adopt(made("genai-fp32")).payload.files
    assert "genai_config.json" not in files
    assert json.loads(files["generation_config.json"])["eos_token_id"] == 1


def test_the_error_for_an_unknown_context_length_asks_for_config_json(made, adopt, tmp_path):
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes((made("torch") / name).read_bytes())
    with pytest.raises(ModelError, match=r"gives the decoder's context_length\n.*config\.json beside the graph"):
        adopt(tmp_path)


def test_a_configuration_of_another_model_is_refused(made, adopt, tmp_path):
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes((made("torch") / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 5, "max_position_embeddings": 256}))
    with pytest.raises(ModelError, match="caches for 2 layers, but the configuration beside it says 5"):
        adopt(tmp_path)
