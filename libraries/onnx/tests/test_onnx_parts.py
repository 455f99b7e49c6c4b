"""Models of several parts: written, read back, split, joined, and quantized part by part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from drupe.api import ONLY_PART, Context, Model, ModelError
from drupe_onnx import (
    Array,
    DecoderDescription,
    OnnxKind,
    OnnxPackage,
    decoder_of,
    describe_decoder,
    graph_files,
    initializer,
    ir,
    package_files,
    part_facts,
    write_package,
    write_twin,
)

KIND = OnnxKind()
DECODER = DecoderDescription("toy", 64, 1, 1, 1, 64, 32, 128, "float32", "float32")
TEXTS = {
    "encoder": "g (float[n, 64] features) => (float[n, 128] states) { h = MatMul(features, w)  states = Relu(h) }",
    "decoder": "g (float[n, 128] states) => (float[n, 32] logits) { logits = MatMul(states, w) }",
}
SHAPES = {"encoder": (64, 128), "decoder": (128, 32)}
PLAIN = {"weights": "float", "logits": "all", "packaged": "no"}


def toy(role: str) -> ir.Model:
    """A small graph with one matrix."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 21]>\n{TEXTS[role]}')
    matrix = np.random.default_rng(len(role)).standard_normal(SHAPES[role]).astype(np.float32)
    held = initializer("w", Array(matrix))
    for node in model.graph:
        node.name = f"{role}/{node.op_type}"
        if node.op_type == "MatMul":
            node.replace_input_with(1, held)
    model.graph.register_initializer(held)
    return model


@pytest.fixture
def package() -> OnnxPackage:
    made = OnnxPackage({role: toy(role) for role in TEXTS}, {"config.json": b"{}", "notes.txt": b"both"})
    describe_decoder(made.components["decoder"], DECODER)
    return made


@pytest.fixture
def written(package: OnnxPackage, tmp_path: Path, make_context: Callable[..., Context]) -> Path:
    folder = tmp_path / "written"
    folder.mkdir()
    write_package(package, folder, make_context())
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def run(folder: Path, features: Any) -> Any:
    """The decoder's logits for what the encoder makes of the features."""
    states = onnxruntime.InferenceSession(folder / "encoder.onnx").run(None, {"features": features})[0]
    return onnxruntime.InferenceSession(folder / "decoder.onnx").run(None, {"states": states})[0]


def test_each_of_several_parts_is_written_to_files_with_its_role(written: Path) -> None:
    graphs = {f"{role}.onnx{data}" for role in TEXTS for data in ("", ".data")}
    assert names(written) == {*graphs, "config.json", "notes.txt"}
    assert graph_files(written) == {role: written / f"{role}.onnx" for role in ("decoder", "encoder")}


def test_the_only_part_is_written_to_model_onnx_with_any_role(
    tmp_path: Path, make_context: Callable[..., Context]
) -> None:
    write_package(OnnxPackage({"encoder": toy("encoder")}), tmp_path, make_context())
    assert {"model.onnx", "model.onnx.data"} <= names(tmp_path)
    assert list(KIND.load(Model("onnx", tmp_path)).payload.components) == [ONLY_PART]


def test_reading_a_folder_gives_the_same_roles_and_facts(written: Path) -> None:
    model = KIND.load(Model("onnx", written))
    assert set(model.payload.components) == set(TEXTS)
    assert {role: dict(facts) for role, facts in model.parts.items()} == dict.fromkeys(TEXTS, PLAIN)
    assert part_facts(package_files(written)) == dict.fromkeys(TEXTS, PLAIN)
    assert set(model.payload.files) == {"config.json", "notes.txt"}


def test_facts_stated_by_the_model_override_those_found_in_the_graph(written: Path) -> None:
    stated = Model("onnx", written, {"encoder": {"channels": "weighed"}, "decoder": {"logits": "last"}})
    parts = KIND.load(stated).parts
    assert parts["encoder"] == {**PLAIN, "channels": "weighed"}
    assert parts["decoder"] == {**PLAIN, "logits": "last"}


def test_a_description_belongs_to_its_component(package: OnnxPackage) -> None:
    assert decoder_of(package.components["encoder"]) is None
    assert decoder_of(package.components["decoder"]) == package.decoder == DECODER
    assert package.context_length == 128


def test_component_of_a_package_with_several_is_an_error_that_names_them(package: OnnxPackage, written: Path) -> None:
    with pytest.raises(ModelError, match="but has 2: encoder, decoder"):
        _ = package.component
    with pytest.raises(ModelError, match="the package must have one graph, but has none"):
        _ = OnnxPackage({}).component
    with pytest.raises(ModelError, match="must have one graph"):
        write_twin(Model("onnx", written), written / "twin")


@pytest.mark.parametrize("role", ["", "../up", "a/b", "C:", ".hidden"])
def test_a_role_that_is_not_a_valid_file_name_is_refused(
    role: str, tmp_path: Path, make_context: Callable[..., Context]
) -> None:
    package = OnnxPackage({"encoder": toy("encoder"), role: toy("decoder")})
    with pytest.raises(ModelError, match="cannot be a file name"):
        write_package(package, tmp_path, make_context())


def test_split_gives_a_model_for_each_part(written: Path) -> None:
    model = KIND.load(Model("onnx", written, task="toy"))
    parts = KIND.split(model)
    assert set(parts) == set(TEXTS)
    for role, part in parts.items():
        assert (list(part.parts), dict(part.facts), part.task) == ([ONLY_PART], PLAIN, "toy")
        assert part.payload.component is model.payload.components[role]
        assert part.payload.files == model.payload.files
        assert part.payload.files is not model.payload.files


def test_splitting_a_model_of_one_part_gives_the_model(tmp_path: Path) -> None:
    model = Model.single("onnx", tmp_path, PLAIN, OnnxPackage({ONLY_PART: toy("encoder")}))
    assert KIND.split(model) == {ONLY_PART: model}
    assert KIND.join(model, {ONLY_PART: model}) is model


def test_join_puts_changed_parts_together_by_role(written: Path) -> None:
    model = KIND.load(Model("onnx", written, task="toy"))
    parts = dict(KIND.split(KIND.fork(model)))
    parts["decoder"].payload.component.graph[0].name = "changed"
    parts["decoder"] = parts["decoder"].but(facts={"weights": "quantized"})
    joined = KIND.join(model, parts)
    assert joined.payload.components["decoder"].graph[0].name == "changed"
    assert model.payload.components["decoder"].graph[0].name == "decoder/MatMul"
    assert {role: facts["weights"] for role, facts in joined.parts.items()} == {
        "encoder": "float",
        "decoder": "quantized",
    }
    assert (joined.task, joined.location) == ("toy", written)
    assert joined.payload.files == model.payload.files


def test_join_keeps_the_file_changes_of_each_part(written: Path) -> None:
    model = KIND.load(Model("onnx", written))
    parts = KIND.split(model)
    parts["encoder"].payload.files["notes.txt"] = b"changed"
    parts["decoder"].payload.files["more/own.json"] = b"[]"
    del parts["decoder"].payload.files["config.json"]
    joined = KIND.join(model, parts)
    assert joined.payload.files == {"notes.txt": b"changed", "more/own.json": b"[]"}


def test_two_parts_that_change_one_file_differently_are_an_error(written: Path, tmp_path: Path) -> None:
    model = KIND.load(Model("onnx", written))
    (tmp_path / "same").write_bytes(b"same")
    parts = KIND.split(model)
    parts["encoder"].payload.files["notes.txt"] = b"same"
    parts["decoder"].payload.files["notes.txt"] = tmp_path / "same"
    assert KIND.join(model, parts).payload.files["notes.txt"] in (b"same", tmp_path / "same")
    parts["decoder"].payload.files["notes.txt"] = b"other"
    with pytest.raises(ModelError, match=r"'decoder' and 'encoder' change the file 'notes\.txt' in different ways"):
        KIND.join(model, parts)
    del parts["decoder"].payload.files["notes.txt"]
    with pytest.raises(ModelError, match="in different ways"):
        KIND.join(model, parts)


def test_each_part_is_described_under_its_role(written: Path) -> None:
    described = KIND.describe(Model("onnx", written))
    graphs = {each["label"]: each for each in described["graphs"]}
    assert graphs["encoder"]["operators"] == 2 and graphs["decoder"]["operators"] == 1
    assert graphs["decoder"]["context length"] == 128
    assert "context length" not in graphs["encoder"]
    assert KIND.describe(KIND.load(Model("onnx", written))) == described


def test_problems_of_a_model_name_the_part(written: Path, make_context: Callable[..., Context]) -> None:
    problems = KIND.check(Model("onnx", written), make_context().target)
    assert {problem.partition(":")[0] for problem in problems} == {"encoder", "decoder"}


def test_parts_are_stored_and_restored(written: Path, tmp_path: Path, make_context: Callable[..., Context]) -> None:
    model, folder = KIND.load(Model("onnx", written)), tmp_path / "kept"
    folder.mkdir()
    KIND.store(model, folder, make_context())
    restored = KIND.restore(Model("onnx", folder, model.parts))
    assert KIND.fingerprint(restored) == KIND.fingerprint(model)
    assert KIND.estimate(restored, make_context()).output_bytes == KIND.size(Model("onnx", written))


def test_a_model_quantized_part_by_part_computes_nearly_the_same(
    written: Path, tmp_path: Path, make_context: Callable[..., Context]
) -> None:
    from drupe_ep_cpu.provider import Cpu
    from drupe_quant_rtn.quantize_weights import QuantizeWeights, QuantizeWeightsConfig

    context = make_context(target=Cpu().target())
    model = KIND.load(Model("onnx", written))
    config, ensured = QuantizeWeightsConfig(bits=8), QuantizeWeights.ensures.facts
    parts = {
        role: QuantizeWeights().run(part, config, context).but(facts=ensured)
        for role, part in KIND.split(KIND.fork(model)).items()
    }
    joined, folder = KIND.join(model, parts), tmp_path / "quantized"
    folder.mkdir()
    KIND.save(joined, folder, context)
    again = KIND.load(Model("onnx", folder))
    assert {role: facts["weights"] for role, facts in again.parts.items()} == dict.fromkeys(TEXTS, "quantized")
    assert {role: dict(facts) for role, facts in again.parts.items()} == {
        role: dict(facts) for role, facts in joined.parts.items()
    }
    features = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    expected = run(written, features)
    assert np.abs(run(folder, features) - expected).max() < 0.05 * np.abs(expected).max()
    assert (folder / "encoder.onnx.data").stat().st_size < 0.4 * (written / "encoder.onnx.data").stat().st_size
