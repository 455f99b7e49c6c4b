"""The kind `onnx`: saving, loading, resolving, describing, estimating, fingerprints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from drupe.api import Model, ModelError
from drupe_files import folder_bytes
from drupe_onnx import (
    Array,
    ExternalTensor,
    LazyWeight,
    MaterializedTooMuch,
    OnnxKind,
    Reshape,
    Transpose,
    expression_of,
    initializer,
    ir,
    weights,
)
from drupe_onnx.package import initializers_of
from drupe_onnx.stored_weights import OTHERS, stored_weights
from drupe_onnx_models.plugin import drupe_resolve_model

FLOAT = ir.DataType.FLOAT
KIND = OnnxKind()


def test_a_saved_model_is_loaded_without_reading_a_weight(model, out, make_context, monkeypatch):
    KIND.save(model, out, make_context())
    (out / "drupe.json").write_text(json.dumps({"precision": "fp32", "target": {"provider": "cpu"}, "drupe": "0.1.0"}))
    monkeypatch.setattr(weights, "LIMIT", 0)
    loaded = KIND.load(Model("onnx", out))
    package = loaded.payload
    assert package.decoder == model.payload.decoder is not None
    assert dict(package.files) == {name: out / name for name in ("tokenizer.json", "extra/a.txt")}
    assert loaded.facts == {"weights": "float", "logits": "last", "packaged": "no"}
    lazy = {value.name: expression_of(value) for value in initializers_of(package.component)}
    assert isinstance(lazy["weight"], ExternalTensor)
    assert lazy["weight"].shape == (64, 96)
    described = KIND.describe(loaded)
    assert described["weight bytes"] == described["bytes by type"]["float32"] == 40_320
    assert (described["precision"], described["made for"]) == ("fp32", "cpu")
    assert described["context length"] == 2048


def test_saving_a_loaded_model_gives_the_same_bytes(model, out, tmp_path, make_context):
    KIND.save(model, out, make_context())
    again = tmp_path / "again"
    again.mkdir()
    KIND.save(Model("onnx", out), again, make_context())
    for path in out.rglob("*"):
        if path.is_file():
            assert (again / path.relative_to(out)).read_bytes() == path.read_bytes()


def test_changing_a_fork_leaves_the_source_unchanged_and_shares_weights(model):
    fork = KIND.fork(model).payload
    (weight,) = (value for value in initializers_of(fork.component) if value.name == "weight")
    assert weight.const_value is next(iter(initializers_of(model.payload.component))).const_value
    fork.component.graph.node("add").name = "changed"
    fork.files.clear()
    assert model.payload.component.graph.node("add").name == "add"
    assert model.payload.files


def test_the_estimate_equals_the_bytes_of_saving_and_reads_no_weight(model, checkpoint, out, make_context, monkeypatch):
    context = make_context()
    size = checkpoint["weight"].path.stat().st_size
    content = checkpoint["weight"].path.read_bytes()
    checkpoint["weight"].path.unlink()
    estimate = KIND.estimate(model, context)
    checkpoint["weight"].path.write_bytes(content)
    KIND.save(model, out, context)
    assert estimate.output_bytes == folder_bytes(out)
    assert estimate.read_bytes == checkpoint["weight"].nbytes < size
    assert 0 < estimate.weights_held_bytes <= context.memory_budget
    assert estimate.work == 0


@pytest.mark.parametrize("thorough", [True, False])
def test_fingerprints_change_with_graph_weights_and_files(model, checkpoint, thorough, tmp_path, monkeypatch):
    monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / "cache"))
    seen = {KIND.fingerprint(model, thorough)}
    assert KIND.fingerprint(KIND.fork(model), thorough) in seen

    def changed(change):
        fork = KIND.fork(model)
        change(fork.payload)
        return KIND.fingerprint(fork, thorough)

    graph = "model"
    seen.add(changed(lambda p: p.components[graph].graph.node("add").metadata_props.update(a="b")))
    seen.add(changed(lambda p: p.components[graph].metadata_props.update(a="b")))
    seen.add(changed(lambda p: p.files.update({"tokenizer.json": b"{ }"})))
    seen.add(changed(lambda p: p.files.pop("tokenizer.json")))
    seen.add(changed(lambda p: p.components[graph].graph.initializers["big"].__setattr__(
        "const_value", LazyWeight("big", Array(np.zeros((40, 96), np.float32))))))  # fmt: skip
    path = checkpoint["weight"].path
    path.write_bytes(path.read_bytes()[:-2] + b"\0\0")
    os.utime(path, ns=(1, 1))
    seen.add(KIND.fingerprint(model, thorough))
    assert len(seen) == 7


def test_a_fingerprint_does_not_depend_on_place_or_time(model, out, tmp_path, make_context, monkeypatch):
    monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / "cache"))
    KIND.save(model, out, make_context())
    shutil.copytree(out, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "model.onnx.data", ns=(1, 1))
    one, two = Model("onnx", out), Model("onnx", tmp_path / "copy")
    assert KIND.fingerprint(one) == KIND.fingerprint(two)
    assert KIND.fingerprint(one, thorough=False) == KIND.fingerprint(two, thorough=False)


# Loading models of other tools


def save_with_onnx(folder: Path, location: str = "weights.bin") -> Path:
    values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    weight = numpy_helper.from_array(values, "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "mm")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [weight],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, location=location, size_threshold=0)
    return folder / location


def test_a_model_that_onnx_wrote_is_loaded_lazily(out):
    data = save_with_onnx(out)
    (value,) = initializers_of(KIND.load(Model("onnx", out)).payload.component)
    assert expression_of(value) == ExternalTensor(data, FLOAT, (64, 64), 0)
    assert KIND.load(Model("onnx", out)).payload.files == {}
    (value,) = initializers_of(KIND.load(Model("onnx", out / "model.onnx")).payload.component)
    assert expression_of(value) == ExternalTensor(data, FLOAT, (64, 64), 0)


def test_the_error_for_missing_or_short_data_names_it(out):
    data = save_with_onnx(out)
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"'w' ends at byte 16384 of 'weights\.bin', but the file has only 16383"):
        KIND.load(Model("onnx", out))
    data.unlink()
    with pytest.raises(ModelError, match=r"data file 'weights.bin' of 'model.onnx' is missing"):
        KIND.load(Model("onnx", out))


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../secret.bin"])
def test_data_outside_the_folder_is_refused(out, tmp_path, location):
    save_with_onnx(out)
    (tmp_path / "secret.bin").write_bytes(b"0" * 16384)
    proto = onnx.load(out / "model.onnx", load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (out / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="lies outside the folder"):
        KIND.load(Model("onnx", out))


def chain_of(*nodes: tuple[str, str]) -> bytes:
    """A graph of Relu nodes from one value to another, from x to y."""
    of_floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    made = [helper.make_node("Relu", [before], [after]) for before, after in nodes]
    return helper.make_model(helper.make_graph(made, "g", of_floats[:1], of_floats[1:])).SerializeToString()


def test_nodes_in_another_order_are_put_into_one_that_works(tmp_path):
    (tmp_path / "model.onnx").write_bytes(chain_of(("b", "y"), ("x", "a"), ("a", "b")))
    loaded = KIND.load(Model("onnx", tmp_path)).payload.component
    assert [node.outputs[0].name for node in loaded.graph] == ["a", "b", "y"]
    loaded.clone()


@pytest.mark.parametrize(
    ("nodes", "told"),
    [((("x", "a"), ("zork", "y")), "nothing makes 'zork'"), ((("b", "a"), ("a", "b"), ("x", "y")), "in a circle")],
)
def test_a_graph_whose_nodes_have_no_order_is_refused_once(tmp_path, nodes, told, caplog):
    (tmp_path / "model.onnx").write_bytes(chain_of(*nodes))
    with pytest.raises(ModelError, match=told):
        KIND.load(Model("onnx", tmp_path))
    assert not caplog.records


@pytest.mark.parametrize("content", [b"", b"\0", b"no graph at all", b"\xff" * 100])
def test_loading_a_file_that_is_not_a_graph_is_refused(out, content):
    (out / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"'model.onnx' is not"):
        KIND.load(Model("onnx", out))


def test_only_a_graph_file_or_a_folder_with_one_is_resolved(out, tmp_path):
    assert drupe_resolve_model(str(out), {}) is None
    assert drupe_resolve_model("some/hub-id", {}) is None
    save_with_onnx(out)
    facts = {"weights": "float", "logits": "all", "packaged": "no"}
    for path in (out, out / "model.onnx"):
        found = drupe_resolve_model(str(path), {})
        assert (found.kind, found.location, dict(found.facts)) == ("onnx", path, facts)
        assert dict(KIND.load(found).facts) == facts
    assert drupe_resolve_model(str(out / "weights.bin"), {}) is None
    assert drupe_resolve_model(str(tmp_path), {}) is None


def test_facts_from_the_outline_equal_facts_from_loading(model, out, make_context):
    model.payload.files["genai_config.json"] = b"{}"
    graph = model.payload.component.graph
    graph.append(ir.node("MatMulNBits", [graph.inputs[0]], {"bits": 4, "block_size": 32}, domain="com.microsoft"))
    KIND.save(model, out, make_context())
    found = drupe_resolve_model(str(out), {})
    assert dict(found.facts) == {"weights": "mixed", "logits": "last", "packaged": "yes"}
    assert dict(KIND.load(Model("onnx", out)).facts) == dict(found.facts)
    assert KIND.describe(found)["quantization"][0] == {
        "text": "4 bits in blocks of 32 (1 matrix)", "bits": 4, "block size": 32, "matrices": 1
    }  # fmt: skip


@pytest.mark.parametrize("reference", ["x" * 300, "x" * 300 + ".onnx", "a\0b.onnx", "x" * 300 + "/model.onnx"])
def test_a_reference_that_is_not_a_valid_path_is_not_resolved(reference):
    assert drupe_resolve_model(reference, {}) is None


def test_a_folder_without_read_permission_is_not_resolved(monkeypatch, out):
    def refuse(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "is_dir", refuse)
    assert drupe_resolve_model(str(out / "below"), {}) is None


@pytest.mark.parametrize("content", [b"", b"\0", b"no graph at all", b"\xff" * 100])
def test_resolving_a_file_that_is_not_a_graph_is_refused(out, content):
    (out / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"'model.onnx' is not an ONNX graph"):
        drupe_resolve_model(str(out), {})


def test_describing_a_package_from_its_folder_or_from_memory_gives_the_same_and_loads_no_library(
    model, out, make_context
):
    weight = expression_of(model.payload.component.graph.initializers["big"])
    model.payload.component.graph.register_initializer(initializer("tied", Reshape(weight, (96, 40))))
    model.payload.component.metadata_props["drupe.float_matrices"] = json.dumps(["a", "b", "c", "d"])
    KIND.save(model, out, make_context())
    in_memory = KIND.describe(model.but(location=out))
    assert KIND.describe(Model("onnx", out)) == in_memory
    left = {"text": "4 matrices: a, b, c and 1 more", "matrices": ["a", "b", "c", "d"]}
    assert in_memory["left in float"] == left
    assert (in_memory["model type"], in_memory["layers"], in_memory["hidden size"]) == ("llama", 2, 8)
    assert in_memory["operators"] == 3
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from drupe_onnx_models.plugin import drupe_resolve_model
        from drupe_onnx.kind import OnnxKind
        model = drupe_resolve_model(sys.argv[1], {})
        assert OnnxKind().describe(model)["context length"] == 2048
        assert OnnxKind().size(model) == int(sys.argv[2])
        print([m for m in ("numpy", "onnx", "onnx_ir", "ml_dtypes", "google.protobuf") if m in sys.modules])
    """)
    arguments = [sys.executable, "-c", script, str(out), str(folder_bytes(out))]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_graph_deeper_than_pythons_stack_is_handled():
    """A decoder of 28 blocks has paths of more than a thousand nodes."""
    value = graph_input = ir.Value(name="x", shape=ir.Shape([4]), type=ir.TensorType(ir.DataType.FLOAT))
    weight = initializer("w", Array(np.ones(4, np.float32)))
    nodes = []
    for number in range(3000):
        nodes.append(ir.node("Add", [value, weight], name=f"add_{number}"))
        value = nodes[-1].outputs[0]
    graph = ir.Graph([graph_input], [value], nodes=nodes, initializers=[weight], opset_imports={"": 21})
    assert [(row.role, row.bytes) for row in stored_weights(graph)] == [(OTHERS, 16)]


def test_bytes_that_two_weights_share_count_once(make_context, out, make_package):
    values = np.ones((500, 1000), np.float32)
    shared = {"table": Array(values), "head": Reshape(Array(values), (1000, 500)), "other": Array(values + 1)}
    KIND.save(Model("onnx", Path("nowhere"), payload=make_package(shared)), out, make_context())
    assert KIND.describe(Model("onnx", out))["weight bytes"] == 4_000_000


def test_bytes_that_two_weights_share_are_shared_after_loading_too(make_context, out, tmp_path, make_package):
    values = np.ones((500, 1000), np.float32)
    shared = {"table": Array(values), "head": Reshape(Array(values), (1000, 500))}
    KIND.save(Model("onnx", Path("nowhere"), payload=make_package(shared)), out, make_context())
    again = tmp_path / "again"
    again.mkdir()
    KIND.save(Model("onnx", out), again, make_context())
    assert folder_bytes(again) == folder_bytes(out)


def test_describing_a_package_without_its_data_is_an_error(out):
    save_with_onnx(out).unlink()
    with pytest.raises(ModelError, match=r"data file 'weights.bin' of 'model.onnx' is missing"):
        KIND.describe(Model("onnx", out))


def test_the_size_counts_all_files_of_the_model(out, tmp_path):
    data = save_with_onnx(out)
    (out / "drupe.json").write_text("{}")
    (out / "tokenizer.json").write_text("{} ")
    graph = (out / "model.onnx").stat().st_size
    assert KIND.size(Model("onnx", out)) == graph + 16384 + 2 + 3
    assert KIND.size(Model("onnx", out / "model.onnx")) == graph + 16384
    data.unlink()
    assert KIND.size(Model("onnx", out)) is None
    assert KIND.size(Model("onnx", tmp_path / "nowhere")) is None


# Weights


def test_materializing_a_large_weight_is_an_error(checkpoint, monkeypatch):
    value = initializer("weight", Transpose(checkpoint["weight"]))
    assert value.const_value.numpy().shape == (64, 96)
    assert len(value.const_value.tobytes()) == value.const_value.nbytes == 64 * 96 * 2
    monkeypatch.setattr(weights, "LIMIT", 64 * 96 * 2 - 1)
    for ask in (value.const_value.numpy, value.const_value.tobytes, lambda: np.asarray(value.const_value)):
        with pytest.raises(MaterializedTooMuch, match="'weight' has 12288 bytes"):
            ask()
    assert isinstance(value.const_value, ir.TensorProtocol)


def test_importing_the_package_and_its_entry_module_loads_nothing_heavy():
    script = (
        "import sys, drupe_onnx, drupe_onnx_models.plugin\n"
        "print([m for m in ('numpy', 'onnx', 'onnx_ir', 'ml_dtypes', 'sympy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_onnx_ir_loads_sympy_only_when_it_is_needed():
    script = textwrap.dedent("""
        import sys
        from drupe_onnx import ir
        assert "sympy" not in sys.modules
        shape = ir.Shape(["batch", None, 3])
        assert "sympy" not in sys.modules
        total = ir.SymbolicDim("past") + 1
        assert str(total) == "past + 1"
        assert str(ir.SymbolicDim("max(1, 2)").simplify()) == "2"
        import sympy
        assert isinstance(total._expr, sympy.Expr)
    """)
    subprocess.run([sys.executable, "-c", script], check=True)
