"""Graphs of any kind: random inputs that fit, the check, the comparison, and the forms that exporters write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch_graphs import export_classifier

from drupe.api import CheckFailed, Context, Model, ModelError, RuntimeMissing, UsageError, registry
from drupe_nbits import find_sites
from drupe_onnx import OnnxKind, ir
from drupe_onnx.outline import outline_of
from drupe_onnx_models.drawing import attempts, draw
from drupe_onnx_models.graph_task import GraphTask
from drupe_onnx_models.outputs import Outputs, OutputsConfig
from drupe_onnx_models.resolving import resolve

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def make(nodes, inputs, outputs, weights=(), opset=18):
    """A model. Inputs and outputs are (name, type, shape), weights are by name."""
    ports = [[helper.make_tensor_value_info(*each) for each in values] for values in (inputs, outputs)]
    tensors = [numpy_helper.from_array(values, name) for name, values in dict(weights).items()]
    graph = helper.make_graph(nodes, "g", *ports, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def save(model, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    return folder


def outline(*inputs, nodes=(), weights=()):
    return outline_of(make(nodes, inputs, [], weights).SerializeToString())


def random_matrix(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Inputs


def test_a_named_size_is_the_same_in_all_inputs_and_sums_of_names_add_up():
    found = draw(
        outline(
            ("x", FLOAT, ["batch_size", "length", 4]),
            ("y", FLOAT, ["length", "past + length"]),
            ("z", FLOAT, ["2 * length", None]),
            ("scalar", FLOAT, []),
        ),
        seed=0,
        size=3,
    )
    assert {name: array.shape for name, array in found.items()} == {
        "x": (1, 3, 4), "y": (3, 6), "z": (6, 3), "scalar": ()
    }  # fmt: skip


def test_indices_stay_below_the_rows_of_the_smallest_table_that_they_index():
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=INT64),
        helper.make_node("Gather", ["large", "wide"], ["a"]),
        helper.make_node("Gather", ["small", "ids"], ["b"]),
        helper.make_node("Gather", ["flat", "column"], ["c"], axis=-1),
    ]
    weights = {
        name: np.zeros(shape, np.float32) for name, shape in (("large", (900, 4)), ("small", (7, 4)), ("flat", (4, 50)))
    }
    inputs = [("ids", TensorProto.INT32, ["n"]), ("column", INT64, ["n"]), ("other", INT64, ["n"])]
    found = draw(outline(*inputs, nodes=nodes, weights=weights), seed=1, size=400)
    assert 4 < found["ids"].max() < 7
    assert 40 < found["column"].max() < 50
    assert set(found["other"]) == {0, 1}
    assert found["ids"].dtype == np.int32


@pytest.mark.parametrize("element", ["FLOAT16", "FLOAT", "DOUBLE", "BOOL", "INT8", "UINT8", "INT64", "UINT16"])
def test_inputs_have_their_declared_types(element):
    kind = getattr(TensorProto, element)
    (array,) = draw(outline(("x", kind, [64])), seed=0).values()
    assert array.dtype == helper.tensor_dtype_to_np_dtype(kind)
    assert len(set(array.tolist())) > 1


def test_masks_are_drawn_with_every_position_visible():
    found = draw(
        outline(("attention_mask", INT64, [4]), ("mask", FLOAT, [4]), ("key_mask", TensorProto.BOOL, [4])), seed=0
    )
    assert all(array.all() for array in found.values())


@pytest.mark.parametrize(
    ("element", "name"), [("STRING", "string"), ("BFLOAT16", "bfloat16"), ("COMPLEX64", "complex64")]
)
def test_the_error_for_an_input_of_an_unsupported_type_names_it(element, name):
    with pytest.raises(ModelError, match=f"the input 'x' has the type {name}"):
        draw(outline(("x", getattr(TensorProto, element), [1])), seed=0)


def test_the_seed_decides_the_inputs():
    ports = outline(("x", FLOAT, [9]), ("y", FLOAT, [9]))
    first, again, other = draw(ports, 0), draw(ports, 0), draw(ports, 1)
    assert (first["x"] == again["x"]).all() and (first["x"] != other["x"]).any() and (first["x"] != first["y"]).any()


def test_a_graph_of_fixed_sizes_is_tried_once():
    assert len(list(attempts(outline(("x", FLOAT, [2, 3])), 0))) == 1
    assert len(list(attempts(outline(("x", FLOAT, [2, "n"])), 0))) > 3


# The check


def check(folder: Path, kit) -> str:
    model = resolve(str(folder))
    return GraphTask().check(kit.Plain(model), model)


def test_a_graph_that_gives_finite_numbers_passes(tmp_path, kit):
    folder = save(
        make([helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, ["n"])], [("y", FLOAT, ["n"])]), tmp_path
    )
    assert check(folder, kit) == "random inputs give finite outputs: y [8]"


def test_several_sizes_are_tried_until_the_graph_runs(tmp_path, kit):
    nodes = [helper.make_node("Conv", ["image", "w"], ["y"], strides=[8, 8])]
    ports = ("image", FLOAT, ["batch", 3, "height", "width"]), ("y", FLOAT, None)
    folder = save(make(nodes, ports[:1], ports[1:], {"w": random_matrix(2, 3, 32, 32)}), tmp_path)
    assert check(folder, kit) == "random inputs give finite outputs: y [1, 2, 1, 1]"


def test_outputs_that_are_not_finite_fail_the_check(tmp_path, kit):
    folder = save(make([helper.make_node("Log", ["x"], ["y"])], [("x", FLOAT, [50])], [("y", FLOAT, [50])]), tmp_path)
    with pytest.raises(CheckFailed, match="the output 'y' is not finite"):
        check(folder, kit)


def test_a_graph_that_runs_with_no_size_fails_with_the_runtimes_error(tmp_path, kit):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ports = [("x", FLOAT, ["n", "k"])], [("y", FLOAT, ["n", 4])]
    folder = save(make(nodes, *ports, {"w": random_matrix(77, 4)}), tmp_path)
    with pytest.raises(CheckFailed, match="onnxruntime cannot run the model"):
        check(folder, kit)


def test_a_graph_with_inputs_of_an_unsupported_type_is_unchecked_and_not_failed(tmp_path, kit):
    nodes = [helper.make_node("StringNormalizer", ["x"], ["y"])]
    folder = save(make(nodes, [("x", TensorProto.STRING, [1])], [("y", TensorProto.STRING, [1])]), tmp_path)
    with pytest.raises(RuntimeMissing, match="'x' has the type string"):
        check(folder, kit)


@pytest.mark.parametrize("name", ["torch", "genai-int4"])
def test_a_decoder_without_a_tokenizer_is_tried_on_tokens(name, made, kit):
    model = resolve(str(made(name)))
    assert "logits [1, 8, 512]" in GraphTask().check(kit.Plain(model), model)
    (samples,) = GraphTask().samples(model, registry().provider("cpu").target()).values()
    assert samples["past_key_values.0.key"].shape == (1, 2, 0, 16)


def test_samples_have_the_sizes_that_are_asked_for(tmp_path, made):
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"]), helper.make_node("Add", ["rows", "more"], ["y"])]
    inputs = [("ids", TensorProto.INT64, ["batch_size", "seq_len"]), ("more", TensorProto.FLOAT, ["depth"])]
    outputs = [("y", TensorProto.FLOAT, ["batch_size", "seq_len", "depth"])]
    model = resolve(str(save(make(nodes, inputs, outputs, {"table": np.ones((5, 4), np.float32)}), tmp_path)))
    target = registry().provider("cpu").target()
    samples = GraphTask().samples(model, target, sizes={"batch": 2, "length": 7, "depth": 4})["model"]
    assert (samples["ids"].shape, samples["more"].shape) == ((2, 7), (4,))
    for wrong in ("width", "lenght"):
        with pytest.raises(UsageError, match=rf"no axis that varies for the size '{wrong}'; it has batch_size, depth"):
            GraphTask().samples(model, target, sizes={wrong: 3})
    decoder = resolve(str(made("genai-int4")))
    (samples,) = GraphTask().samples(decoder, target, sizes={"batch": 3, "length": 4}).values()
    assert samples["input_ids"].shape == (3, 4) and samples["past_key_values.0.key"].shape == (3, 2, 0, 16)


# The comparison


def measure(package: Path, reference: Path, context: Context, **config):
    models = [resolve(str(each)) for each in (package, reference)]
    metrics = Outputs().evaluate(models[0], models[1], OutputsConfig(**config), context)
    return {metric.name: metric for metric in metrics}


def test_a_graph_has_no_difference_from_itself(tmp_path, context):
    folder = export_classifier(tmp_path / "m" / "model.onnx").parent
    found = measure(folder, folder, context)
    assert (found["cosine_similarity"].value, found["cosine_similarity"].better) == (pytest.approx(1), "higher")
    assert (found["relative_difference"].value, found["relative_difference"].better) == (0, "lower")


def test_each_output_is_compared_and_integers_by_the_share_of_equal_values(tmp_path, context):
    def graph(bias):
        nodes = [
            helper.make_node("Add", ["x", "b"], ["y"]),
            helper.make_node("Neg", ["x"], ["z"]),
            helper.make_node("ArgMax", ["y"], ["best"], axis=0),
        ]
        ports = [("x", FLOAT, [50])], [("y", FLOAT, [50]), ("z", FLOAT, [50]), ("best", INT64, [1])]
        return save(make(nodes, *ports, {"b": np.array(bias, np.float32)}), tmp_path / str(bias))

    found = measure(graph(0.5), graph(0.0), context)
    assert found["cosine_similarity:z"].value == pytest.approx(1)
    assert found["cosine_similarity"].value == found["cosine_similarity:y"].value < 0.95
    assert found["relative_difference:y"].value == pytest.approx(0.5 / 3, rel=0.3)
    assert (found["equal:best"].value, found["equal:best"].unit) == (1, "of values")


def test_an_output_unlike_the_sources_fails_the_check(tmp_path, context):
    def graph(operator):
        nodes = [helper.make_node(operator, ["x"], ["y"])]
        return save(make(nodes, [("x", FLOAT, [50])], [("y", FLOAT, [50])]), tmp_path / operator)

    with pytest.raises(CheckFailed, match=r"'y' has a cosine similarity of -1 .* below the limit of 0\.5"):
        measure(graph("Neg"), graph("Identity"), context, **Outputs.verifying)


def test_the_error_for_a_source_with_other_inputs_names_them(tmp_path, context):
    folders = [
        save(make([helper.make_node("Neg", [name], ["y"])], [(name, FLOAT, [5])], [("y", FLOAT, [5])]), tmp_path / name)
        for name in ("a", "b")
    ]
    with pytest.raises(ModelError, match="the package has the inputs a, but the source has b"):
        measure(*folders, context)


def test_comparing_without_a_reference_is_a_usage_error(tmp_path, context):
    model = resolve(str(export_classifier(tmp_path / "model.onnx")))
    with pytest.raises(UsageError, match="needs a model to compare with"):
        Outputs().evaluate(model, None, OutputsConfig(), context)


# Forms that exporters write


def rows_of(model: Model) -> list[tuple[int, ...]]:
    return [site.rows.shape for site in find_sites(model.payload.component.graph)]


def product(*, before=(), matrix="w", weights=None, inputs=(), opset=18):
    nodes = [*before, helper.make_node("MatMul", ["x", matrix], ["y"])]
    ports = [("x", FLOAT, ["n", 64]), *inputs], [("y", FLOAT, ["n", 32])]
    return make(nodes, *ports, {"w": random_matrix(64, 32)} if weights is None else weights, opset)


def constant_node():
    matrix = numpy_helper.from_array(random_matrix(64, 32), "w")
    return product(before=[helper.make_node("Constant", [], ["w"], value=matrix)], weights={})


def transposed():
    before = [helper.make_node("Transpose", ["w"], ["w_t"])]
    return product(before=before, matrix="w_t", weights={"w": random_matrix(32, 64)})


def identity():
    return product(before=[helper.make_node("Identity", ["w"], ["same"])], matrix="same")


def initializer_among_inputs():
    return product(inputs=[("w", FLOAT, [64, 32])])


def function():
    body = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    opsets = [helper.make_opsetid("", 18)]
    model = make([helper.make_node("Linear", ["x", "w"], ["y"], domain="own")], [("x", FLOAT, ["n", 64])],
                 [("y", FLOAT, ["n", 32])], {"w": random_matrix(64, 32)})  # fmt: skip
    model.functions.append(helper.make_function("own", "Linear", ["a", "b"], ["c"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


@pytest.mark.parametrize("form", [product, constant_node, transposed, identity, initializer_among_inputs, function])
def test_a_matrix_is_found_in_every_form_that_exporters_write(form, adopt, tmp_path):
    assert rows_of(adopt(save(form(), tmp_path))) == [(32, 64)]


@pytest.mark.parametrize("form", [constant_node, transposed, identity, initializer_among_inputs, function])
def test_graphs_in_every_form_give_the_same_outputs_after_adopting(form, written, kit, tmp_path):
    folder = save(form(), tmp_path / "source")
    given = {"x": random_matrix(3, 64)}
    ours, theirs = (kit.Plain(Model("onnx", path)).run(given)["y"] for path in (written(folder), folder / "model.onnx"))
    assert np.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 18])
def test_graphs_of_old_opsets_are_converted_to_opset_13_or_newer(opset, adopt, written, kit, tmp_path):
    path = export_classifier(tmp_path / "m" / "model.onnx", opset)
    graph = adopt(path).payload.component
    assert graph.opset_imports[""] >= 13
    given = {"tokens": np.array([[1, 2, 4000]]), "mask": np.ones((1, 3), np.float32)}
    ours, theirs = (kit.Plain(Model("onnx", each)).run(given)["scores"] for each in (written(path), path))
    assert np.abs(ours - theirs).max() < 1e-5


def test_the_error_for_a_graph_whose_opset_cannot_be_converted_says_so(adopt, tmp_path):
    nodes = [helper.make_node("Upsample", ["x", "s"], ["y"])]
    ports = [("x", FLOAT, [1, 1, 4, 4])], [("y", FLOAT, None)]
    model = make(nodes, *ports, {"s": np.array([1, 1, 2, 2], np.float32)}, opset=9)
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="of opset 9, and onnx cannot convert it to 17"):
        adopt(save(model, tmp_path))


def test_a_float32_graph_is_cast_to_the_types_of_the_recipe(tmp_path, context):
    from drupe_onnx_models.adopt_graph import AdoptGraph, AdoptGraphConfig

    nodes = [
        helper.make_node("Where", ["keep", "x", "lowest"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["odds"]),
        helper.make_node("MatMul", ["odds", "w"], ["y"]),
    ]
    lowest = np.array(np.finfo(np.float32).min, np.float32)
    ports = [("keep", TensorProto.BOOL, ["n", 64]), ("x", FLOAT, ["n", 64])], [("y", FLOAT, ["n", 32])]
    folder = save(make(nodes, *ports, {"lowest": lowest, "w": random_matrix(64, 32)}), tmp_path)
    there = Context(registry().provider("cuda").target(), tmp_path / "scratch")
    kind = OnnxKind()
    config = AdoptGraphConfig(activations="float16", weights="float16")
    model = AdoptGraph().run(kind.fork(kind.load(resolve(str(folder)))), config, there)
    graph = model.payload.component.graph
    types = {value.name: value.dtype for node in graph for value in (*node.inputs, *node.outputs)}
    assert types.pop("keep") == ir.DataType.BOOL
    assert set(types.values()) == {ir.DataType.FLOAT16}
    assert float(graph.initializers["lowest"].const_value.numpy()) == np.finfo(np.float16).min


def test_activations_of_a_type_that_the_target_lacks_are_refused(adopt, tmp_path):
    with pytest.raises(UsageError, match="'cpu' does not compute in float16"):
        adopt(save(product(), tmp_path), activations="float16")
