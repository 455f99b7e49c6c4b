"""The kind `onnx`: loading, checking, describing, estimating, fingerprints, keeping."""

from __future__ import annotations

import contextlib
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

from drupe.api import Model, ModelError, Target
from drupe_onnx import (
    Array,
    Capabilities,
    Cast,
    DecoderDescription,
    ExternalTensor,
    KernelSupport,
    LazyWeight,
    MaterializedTooMuch,
    OnnxKind,
    OnnxPackage,
    Operator,
    Reshape,
    Transpose,
    expression_of,
    initializer,
    ir,
    read_header,
    weights,
)
from drupe_onnx.decoder_description import describe_decoder
from drupe_onnx.elements import ELEMENTS, element_name
from drupe_onnx.operator_check import operator_uses
from drupe_onnx.outline import Malformed, outline_of, read_outline
from drupe_onnx.package import initializers_of
from drupe_onnx.stored_weights import OTHERS, stored_weights
from drupe_onnx_models.plugin import drupe_resolve_model

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
    """x @ W.T + b with a lazy weight, a large array and a small array."""
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
    describe_decoder(package.component, DECODER)
    return Model("onnx", Path("nowhere"), payload=package)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_saved_model_is_loaded_without_reading_a_weight(model, out, make_context, monkeypatch):
    KIND.save(model, out, make_context())
    (out / "drupe.json").write_text(json.dumps({"precision": "fp32", "target": {"provider": "cpu"}, "drupe": "0.1.0"}))
    monkeypatch.setattr(weights, "LIMIT", 0)
    loaded = KIND.load(Model("onnx", out))
    package = loaded.payload
    assert package.decoder == DECODER
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
    assert estimate.output_bytes == bytes_in(out)
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


# Storing and restoring

RESTORE = """
    import sys
    from pathlib import Path
    from drupe.api import Context, Model, Target
    from drupe_onnx import Capabilities
    from drupe_onnx import OnnxKind

    model = OnnxKind().restore(Model("onnx", Path(sys.argv[1])))
    target = Target("test", "1", Capabilities(">=1", {}, ("float32",)))
    OnnxKind().save(model, Path(sys.argv[2]), Context(target, Path(sys.argv[2])))
"""


def test_another_process_restores_a_stored_model(model, checkpoint, out, tmp_path, make_context):
    context = make_context()
    made = np.random.default_rng(1).standard_normal((50, 50)).astype(np.float32)
    (context.scratch / "made.bin").write_bytes(made.tobytes())
    graph = model.payload.component.graph
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


def test_a_source_whose_content_is_known_is_restored_wherever_it_lies(model, checkpoint, out, tmp_path, make_context):
    kept, source = tmp_path / "kept", checkpoint["weight"].path.parent
    kept.mkdir()
    KIND.store(model, kept, make_context())
    KIND.save(model, out, make_context())
    os.utime(checkpoint["weight"].path, ns=(1, 1))
    assert KIND.restore(Model("onnx", kept), (source, source)).payload is not None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    checkpoint["weight"].path.rename(elsewhere / checkpoint["weight"].path.name)
    restored = KIND.restore(Model("onnx", kept), (source, elsewhere))
    again = tmp_path / "again"
    again.mkdir()
    KIND.save(restored, again, make_context())
    assert bytes_in(again) == bytes_in(out)
    assert (again / "model.onnx.data").read_bytes() == (out / "model.onnx.data").read_bytes()
    with pytest.raises(ModelError, match="does not exist any more"):
        KIND.restore(Model("onnx", kept), (tmp_path / "another", elsewhere))
    path = elsewhere / checkpoint["weight"].path.name
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(ModelError, match=r"'model.safetensors' has changed"):
        KIND.restore(Model("onnx", kept), (source, elsewhere))


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


def nested_model() -> onnx.ModelProto:
    """A quantized last-token node in a branch, and weights whose bytes and names look like operators and roles."""
    inner = helper.make_node("MatMulNBits", ["x", "w"], ["o"], domain="com.microsoft", K=64, bits=4, block_size=32)
    entry = inner.metadata_props.add()
    entry.key, entry.value = "drupe.role", "last-token"
    branch = helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)])
    outer = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    held = TensorProto(
        name="w", data_type=TensorProto.UINT8, dims=[2, 1 << 19], raw_data=b"GatherBlockQuantized\x0a" * 8
    )
    graph = helper.make_graph(
        [outer], "g", [], [], [held, numpy_helper.from_array(np.zeros(3, np.float32), "last-token")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, {"drupe.float_matrices": json.dumps(["a", "b", "c", "d"]), "key": "value"})
    return model


def test_an_outline_equals_what_onnx_reads():
    model = nested_model()
    outline = outline_of(model.SerializeToString())
    assert sorted(node.operator for node in outline.nodes) == ["If", "MatMulNBits", "MatMulNBits"]
    (node, _) = (node for node in outline.nodes if node.integers)
    assert (node.integers, node.metadata) == ({"K": 64, "bits": 4, "block_size": 32}, {"drupe.role": "last-token"})
    assert [(weight.name, weight.element, weight.shape, weight.external) for weight in outline.weights] == [
        (tensor.name, tensor.data_type, tuple(tensor.dims), {}) for tensor in model.graph.initializer
    ]
    assert outline.metadata == {entry.key: entry.value for entry in model.metadata_props}


def test_broken_bytes_are_malformed_or_give_an_outline():
    whole = nested_model().SerializeToString()
    rng = np.random.default_rng(0)
    for cut in range(1, len(whole), 7):
        with pytest.raises(Malformed):
            outline_of(whole[:-cut])
    for _ in range(500):
        broken = bytearray(whole)
        broken[rng.integers(len(broken))] = rng.integers(256)
        with contextlib.suppress(Malformed):
            outline_of(bytes(broken))


def test_facts_come_from_nodes_and_not_from_names_or_bytes_of_weights(out):
    model = nested_model()
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Identity", ["QMoE"], ["last-token"], "MatMulNBits"))
    onnx.save(model, out / "model.onnx")
    assert dict(drupe_resolve_model(str(out), {}).facts) == {"weights": "float", "logits": "all", "packaged": "no"}
    onnx.save(nested_model(), out / "model.onnx")
    found = drupe_resolve_model(str(out), {})
    assert dict(found.facts) == {"weights": "quantized", "logits": "last", "packaged": "no"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a hole in a file may take room on the disk")
def test_reading_an_outline_skips_weights_in_the_graph(out):
    """The graph has a tensor of 16 GiB, which is a hole in a sparse file."""
    tail = nested_model().SerializeToString()
    with (out / "model.onnx").open("wb") as file:
        size = 1 << 34
        tensor = b"\x4a" + varint(size)
        file.write(b"\x3a" + varint(len(tensor) + size + 1 + len(varint(len(tensor) + size))))
        file.write(b"\x2a" + varint(len(tensor) + size) + tensor)
        file.seek(size, os.SEEK_CUR)
        file.write(tail)
    outline = read_outline(out / "model.onnx")
    assert len(outline.weights) == 3
    assert len(outline.nodes) == 3


def varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])


def test_names_and_sizes_of_element_types_equal_those_of_onnx_ir():
    known = {int(each): each for each in ir.DataType if each != ir.DataType.UNDEFINED}
    assert ELEMENTS.keys() >= known.keys() - {number for number in known if number > 28}
    for number, (name, bits) in ELEMENTS.items():
        if number in known:
            assert name in (known[number].name.lower(), "float32", "float64")
            assert element_name(known[number]) == name
            assert known[number] == ir.DataType.STRING or bits == known[number].bitwidth


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
    arguments = [sys.executable, "-c", script, str(out), str(bytes_in(out))]
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
    assert bytes_in(again) == bytes_in(out)


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


# Checking


def make_target(**operators: Operator) -> Target:
    return Target("test", "1.0", Capabilities(">=1", operators, ("float32",)))


def operator(*types: str, inputs: int = 2, **limits: object) -> Operator:
    support = KernelSupport({"T": frozenset(types)}, **limits)
    return Operator(("T",) * inputs, ("T",), (support,))


def test_a_model_that_the_target_can_run_has_no_problems(model):
    assert KIND.check(model, make_target(MatMul=operator("float32"), Add=operator("float32"))) == ()


def test_each_problem_is_one_sentence_that_names_operator_and_node(model):
    assert KIND.check(model, make_target(MatMul=operator("float16"))) == (
        "MatMul: input 0 is float32; supported: float16 (node 'product')",
        "no kernel for Add (node 'add' and 1 more)",
    )
    late = make_target(MatMul=operator("float32", since=22), Add=operator("float32"))
    assert KIND.check(model, late) == ("MatMul: opset version 21 is not supported (node 'product')",)


def test_attributes_omitted_inputs_and_inner_graphs_are_checked():
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
