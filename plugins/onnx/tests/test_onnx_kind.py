"""The kind `onnx`: loading, checking, describing, estimating, fingerprints, keeping."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from drupe.api import Capabilities, KernelSupport, Model, ModelError, Operator, Target
from drupe_onnx import (
    Array,
    Cast,
    DecoderDescription,
    ExternalTensor,
    LazyWeight,
    MaterializedTooMuch,
    OnnxKind,
    OnnxPackage,
    Transpose,
    expression_of,
    initializer,
    ir,
    read_header,
    weights,
)
from drupe_onnx.checking import operator_uses
from drupe_onnx.package import initializers_of
from drupe_onnx.plugin import drupe_resolve_model

FLOAT = ir.DataType.FLOAT
DECODER = DecoderDescription("llama", 8, 2, 4, 2, 4, 100, 2048, "float32", "float32", 1, (2, 3), None)
KIND = OnnxKind()


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def checkpoint(tmp_path, write_safetensors):
    weight = np.random.default_rng(0).standard_normal((96, 64)).astype(ml_dtypes.bfloat16)
    return read_header(write_safetensors(tmp_path / "model.safetensors", {"weight": weight}))


@pytest.fixture
def model(checkpoint):
    """x @ W.T + b, with the weight lazy, a large array and a small one."""
    weight = initializer("weight", Transpose(Cast(checkpoint["weight"], FLOAT)))
    bias = initializer("bias", Array(np.arange(96, dtype=np.float32)))
    big = initializer("big", Array(np.ones((40, 96), np.float32)))
    x = ir.val("x", FLOAT, ["n", 64])
    product = ir.node("MatMul", [x, weight], name="product")
    add = ir.node("Add", [product.outputs[0], bias], name="add")
    last = ir.node("Add", [add.outputs[0], big], outputs=[ir.val("y", FLOAT, ["n", 96])], name="last")
    last.metadata_props["drupe.role"] = "last-token"
    graph = ir.Graph(
        [x],
        last.outputs,
        nodes=[product, add, last],
        initializers=[weight, bias, big],
        opset_imports={"": 21},
        name="g",
    )
    package = OnnxPackage({"model": ir.Model(graph, ir_version=10)}, {"tokenizer.json": b"{}", "extra/a.txt": b"text"})
    package.decoder = DECODER
    return Model("onnx", Path("nowhere"), payload=package)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_is_saved_is_loaded_again_without_reading_a_weight(model, out, make_context, monkeypatch):
    KIND.save(model, out, make_context())
    (out / "drupe.json").write_text(json.dumps({"precision": "fp32", "target": {"provider": "cpu"}, "drupe": "0.1.0"}))
    monkeypatch.setattr(weights, "LIMIT", 0)
    loaded = KIND.load(Model("onnx", out))
    package = loaded.payload
    assert package.decoder == DECODER
    assert dict(package.files) == {name: out / name for name in ("tokenizer.json", "extra/a.txt")}
    assert loaded.facts == {"weights": "float", "logits": "last", "packaged": "no"}
    lazy = {value.name: expression_of(value) for value in initializers_of(package.components["model"])}
    assert isinstance(lazy["weight"], ExternalTensor)
    assert lazy["weight"].shape == (64, 96)
    described = KIND.describe(loaded)
    assert described["weights"] == "0.0 MB (float32 0.0 MB)"
    assert (described["precision"], described["made for"]) == ("fp32", "cpu")
    assert described["context length"] == "2,048 tokens"


def test_saving_what_was_loaded_gives_the_same_bytes(model, out, tmp_path, make_context):
    KIND.save(model, out, make_context())
    again = tmp_path / "again"
    again.mkdir()
    KIND.save(Model("onnx", out), again, make_context())
    for path in out.rglob("*"):
        if path.is_file():
            assert (again / path.relative_to(out)).read_bytes() == path.read_bytes()


def test_a_fork_may_be_changed_and_shares_the_weights(model):
    fork = KIND.fork(model).payload
    (weight,) = (value for value in initializers_of(fork.components["model"]) if value.name == "weight")
    assert weight.const_value is next(iter(initializers_of(model.payload.components["model"]))).const_value
    fork.components["model"].graph.node("add").name = "changed"
    fork.files.clear()
    assert model.payload.components["model"].graph.node("add").name == "add"
    assert model.payload.files


def test_the_estimate_is_what_saving_takes_and_reads_no_weight(model, checkpoint, out, make_context, monkeypatch):
    context = make_context()
    size = checkpoint["weight"].path.stat().st_size
    content = checkpoint["weight"].path.read_bytes()
    checkpoint["weight"].path.unlink()
    estimate = KIND.estimate(model, context)
    checkpoint["weight"].path.write_bytes(content)
    KIND.save(model, out, context)
    assert estimate.output_bytes == bytes_in(out)
    assert estimate.read_bytes == checkpoint["weight"].nbytes < size
    assert 0 < estimate.peak_bytes <= context.memory_budget
    assert estimate.work == 0


@pytest.mark.parametrize("thorough", [True, False])
def test_fingerprints_follow_graph_weights_and_files(model, checkpoint, thorough, tmp_path, monkeypatch):
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


def test_a_thorough_fingerprint_does_not_depend_on_where_or_when(model, out, tmp_path, make_context, monkeypatch):
    monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / "cache"))
    KIND.save(model, out, make_context())
    shutil.copytree(out, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "model.onnx.data", ns=(1, 1))
    one, two = Model("onnx", out), Model("onnx", tmp_path / "copy")
    assert KIND.fingerprint(one) == KIND.fingerprint(two)
    assert KIND.fingerprint(one, thorough=False) != KIND.fingerprint(two, thorough=False)


# Keeping

RESTORE = """
    import sys
    from pathlib import Path
    from drupe.api import Capabilities, Context, Model, Target
    from drupe_onnx import OnnxKind

    model = OnnxKind().restore(Model("onnx", Path(sys.argv[1])))
    target = Target("test", "1", Capabilities(">=1", {}, ("float32",)))
    OnnxKind().save(model, Path(sys.argv[2]), Context(target, Path(sys.argv[2])))
"""


def test_another_process_restores_what_was_stored(model, checkpoint, out, tmp_path, make_context):
    context = make_context()
    made = np.random.default_rng(1).standard_normal((50, 50)).astype(np.float32)
    (context.scratch / "made.bin").write_bytes(made.tobytes())
    graph = model.payload.components["model"].graph
    graph.register_initializer(initializer("made", ExternalTensor(context.scratch / "made.bin", FLOAT, (50, 50), 0)))
    KIND.save(model, out, context)
    kept, moved, restored = tmp_path / "kept", tmp_path / "moved", tmp_path / "restored"
    kept.mkdir()
    restored.mkdir()
    KIND.store(model, kept, context)
    kept.rename(moved)
    shutil.rmtree(context.scratch)
    assert bytes_in(moved) < checkpoint["weight"].nbytes + made.nbytes + 40 * 96 * 4 + 20_000
    script = textwrap.dedent(RESTORE)
    subprocess.run([sys.executable, "-c", script, str(moved), str(restored)], check=True)
    for path in out.rglob("*"):
        if path.is_file():
            assert (restored / path.relative_to(out)).read_bytes() == path.read_bytes(), path.name


def test_a_source_that_changed_is_not_restored(model, checkpoint, tmp_path, make_context):
    kept = tmp_path / "kept"
    kept.mkdir()
    KIND.store(model, kept, make_context())
    os.utime(checkpoint["weight"].path, ns=(1, 1))
    with pytest.raises(ModelError, match=r"'model.safetensors' has changed"):
        KIND.restore(Model("onnx", kept))


# Loading what others wrote


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
    (value,) = initializers_of(KIND.load(Model("onnx", out)).payload.components["model"])
    assert expression_of(value) == ExternalTensor(data, FLOAT, (64, 64), 0)
    assert KIND.load(Model("onnx", out)).payload.files == {}
    (value,) = initializers_of(KIND.load(Model("onnx", out / "model.onnx")).payload.components["model"])
    assert expression_of(value) == ExternalTensor(data, FLOAT, (64, 64), 0)


def test_data_that_is_missing_or_cut_short_is_named(out):
    data = save_with_onnx(out)
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"tensor 'w' ends at byte 16384 of 'weights.bin', which has 16383"):
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


@pytest.mark.parametrize("content", [b"", b"\0", b"no graph at all", b"\xff" * 100])
def test_what_is_no_graph_is_refused(out, content):
    (out / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"'model.onnx' is not"):
        KIND.load(Model("onnx", out))


def test_a_folder_or_file_is_claimed_only_where_there_is_a_graph(out, tmp_path):
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


def test_facts_found_by_a_glance_are_those_found_by_loading(model, out, make_context):
    model.payload.files["genai_config.json"] = b"{}"
    graph = model.payload.components["model"].graph
    graph.append(ir.node("MatMulNBits", [graph.inputs[0]], {"bits": 4, "block_size": 32}, domain="com.microsoft"))
    KIND.save(model, out, make_context())
    found = drupe_resolve_model(str(out), {})
    assert dict(found.facts) == {"weights": "quantized", "logits": "last", "packaged": "yes"}
    assert dict(KIND.load(Model("onnx", out)).facts) == dict(found.facts)
    assert KIND.describe(found)["quantization"] == "4 bits in blocks of 32 (1 matrix)"


# Checking


def make_target(**operators: Operator) -> Target:
    return Target("test", "1.0", Capabilities(">=1", operators, ("float32",)))


def operator(*types: str, inputs: int = 2, **limits: object) -> Operator:
    support = KernelSupport({"T": frozenset(types)}, **limits)
    return Operator(("T",) * inputs, ("T",), (support,))


def test_a_model_that_the_target_runs_has_no_problems(model):
    assert KIND.check(model, make_target(MatMul=operator("float32"), Add=operator("float32"))) == ()


def test_each_problem_is_one_sentence_with_operator_and_node(model):
    assert KIND.check(model, make_target(MatMul=operator("float16"))) == (
        "MatMul: input 0 is float32; served: float16 (node 'product')",
        "no kernel for Add (node 'add' and 1 more)",
    )
    late = make_target(MatMul=operator("float32", since=22), Add=operator("float32"))
    assert KIND.check(model, late) == ("MatMul: opset version 21 is not served (node 'product')",)


def test_attributes_left_out_inputs_and_inner_graphs_are_seen():
    x = ir.val("x", FLOAT, [2])
    inner = ir.node("Acme", [x, None], {"mode": "fast", "axes": [1, 2]}, domain="acme", outputs=[ir.val("o", FLOAT)])
    branch = ir.Graph([], inner.outputs, nodes=[inner], name="branch")
    condition = ir.val("c", ir.DataType.BOOL, [])
    outer = ir.node(
        "If", [condition], {"then_branch": branch, "else_branch": branch.clone(True)}, outputs=[ir.val("y")]
    )
    graph = ir.Graph([x, condition], outer.outputs, nodes=[outer], opset_imports={"": 21, "acme": 3}, name="g")
    uses = [use for _, use in operator_uses(ir.Model(graph, ir_version=10))]
    assert [use.key for use in uses].count("acme::Acme") == 2
    (acme, _) = (use for use in uses if use.name == "Acme")
    assert (acme.version, acme.inputs, acme.outputs) == (3, ("float32", ""), ("float32",))
    assert acme.attributes == {"mode": "fast", "axes": (1, 2)}
    (branching,) = (use for use in uses if use.name == "If")
    assert (branching.inputs, branching.outputs, branching.attributes) == (("bool",), (None,), {})


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("FLOAT", "float32"), ("DOUBLE", "float64"), ("FLOAT16", "float16"), ("BFLOAT16", "bfloat16"), ("INT64", "int64"),
     ("UINT8", "uint8"), ("INT4", "int4"), ("BOOL", "bool"), ("STRING", "string"), ("FLOAT8E4M3FN", "float8e4m3fn")],
)  # fmt: skip
def test_element_types_have_the_names_of_capability_tables(dtype, name):
    node = ir.node("Identity", [ir.val("x", ir.DataType[dtype], [1])])
    graph = ir.Graph(list(node.inputs), node.outputs, nodes=[node], opset_imports={"": 21})
    ((_, use),) = operator_uses(ir.Model(graph, ir_version=10))
    assert use.inputs == (name,)


# Weights


def test_a_large_weight_is_not_materialised_by_accident(checkpoint, monkeypatch):
    value = initializer("weight", Transpose(checkpoint["weight"]))
    assert value.const_value.numpy().shape == (64, 96)
    assert len(value.const_value.tobytes()) == value.const_value.nbytes == 64 * 96 * 2
    monkeypatch.setattr(weights, "LIMIT", 64 * 96 * 2 - 1)
    for ask in (value.const_value.numpy, value.const_value.tobytes, lambda: np.asarray(value.const_value)):
        with pytest.raises(MaterializedTooMuch, match="'weight' is 12288 bytes"):
            ask()
    assert isinstance(value.const_value, ir.TensorProtocol)


def test_importing_the_package_and_its_entry_module_loads_nothing_heavy():
    script = (
        "import sys, drupe_onnx, drupe_onnx.plugin\n"
        "print([m for m in ('numpy', 'onnx', 'onnx_ir', 'ml_dtypes', 'sympy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_onnx_ir_comes_without_sympy_until_it_is_needed():
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
