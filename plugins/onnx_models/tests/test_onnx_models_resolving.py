"""Resolving a file or a folder to a model: its graphs, its task, its facts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from drupe.api import ModelError, UsageError, registry, resolve
from drupe_onnx_models.resolving import resolve as resolve_onnx


def write_graph(path: Path, **outside: int) -> Path:
    """A graph with one matrix product. outside: offset and length of its external data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    matrix = numpy_helper.from_array(np.ones((32, 16), np.float32), "w")
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 32), ("y", 16))
    ]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], [matrix])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def find(path: Path):
    """Resolve a reference with all plugins."""
    return resolve(str(path), {}, registry())


def test_a_graph_file_and_a_folder_with_model_onnx_are_resolved(tmp_path):
    path = write_graph(tmp_path / "model.onnx")
    for reference in (path, tmp_path):
        model = find(reference)
        assert (model.kind, model.location, model.task) == ("onnx", reference, "graph")
        assert dict(model.facts) == {"weights": "float", "logits": "all", "packaged": "no"}


@pytest.mark.parametrize(
    "name", ["decoder_model.onnx", "model_quantized.onnx", "decoder_with_past_model.onnx", "bert.onnx"]
)
def test_the_only_graph_of_a_folder_may_have_any_name(tmp_path, name):
    path = write_graph(tmp_path / name)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert find(tmp_path).location == path


def test_a_part_that_is_a_link_to_nothing_is_not_left_out(tmp_path):
    write_graph(tmp_path / "encoder.onnx")
    (tmp_path / "decoder.onnx").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"'decoder.onnx' is a link to a file that is not there"):
        find(tmp_path)


def test_a_revision_of_a_graph_on_this_machine_is_refused(tmp_path):
    path = write_graph(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="--revision is for models on the hub"):
        resolve(str(path), {"revision": "main"}, registry())


def test_model_onnx_is_chosen_among_several_versions_of_one_model(tmp_path):
    for name in ("model.onnx", "model_fp16.onnx", "model_q4.onnx", "decoder_model_merged.onnx"):
        write_graph(tmp_path / name)
    assert find(tmp_path).location == tmp_path / "model.onnx"


def test_the_error_for_several_versions_without_model_onnx_names_them(tmp_path):
    for name in ("decoder_model.onnx", "decoder_with_past_model.onnx"):
        write_graph(tmp_path / name)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match=r"decoder_model\.onnx, decoder_with_past_model\.onnx") as caught:
        find(tmp_path)
    assert "decoder_model.onnx" in caught.value.cure


def test_different_graphs_in_a_folder_are_parts_of_one_model(tmp_path):
    for name in ("encoder.onnx", "decoder.onnx"):
        write_graph(tmp_path / name)
    assert sorted(find(tmp_path).parts) == ["decoder", "encoder"]


def test_a_checkpoint_with_an_exported_graph_beside_it_resolves_to_the_checkpoint(tmp_path):
    write_graph(tmp_path / "decoder_model.onnx")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert resolve_onnx(str(tmp_path)) is None
    assert find(tmp_path).kind == "hf"


def test_graphs_in_the_subfolder_onnx_of_a_repository_are_found(tmp_path, made):
    (tmp_path / "onnx").mkdir()
    shutil.copy(made("torch") / "model.onnx", tmp_path / "onnx")
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(made("torch") / name, tmp_path)
    for reference in (tmp_path, tmp_path / "onnx", tmp_path / "onnx" / "model.onnx"):
        assert find(reference).task == "text-generation"


def test_the_graph_named_by_genai_config_is_chosen(tmp_path):
    write_graph(tmp_path / "model.onnx")
    named = write_graph(tmp_path / "text.onnx")
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": {"decoder": {"filename": "text.onnx"}}}))
    assert find(tmp_path).location == named


def test_the_error_for_a_genai_model_of_several_graphs_names_them(tmp_path):
    write_graph(tmp_path / "text.onnx")
    parts = {"decoder": {"filename": "text.onnx"}, "vision": {"filename": "vision.onnx"}}
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": parts}))
    with pytest.raises(ModelError, match=r"text\.onnx \(decoder\), vision\.onnx \(vision\)"):
        find(tmp_path)


@pytest.mark.parametrize("name", ["../text.onnx", "/text.onnx"])
def test_a_graph_outside_the_folder_is_ignored(tmp_path, name):
    write_graph(tmp_path / "text.onnx")
    inside = write_graph(tmp_path / "folder" / "model.onnx").parent
    (inside / "genai_config.json").write_text(json.dumps({"model": {"decoder": {"filename": name}}}))
    assert find(inside).location == inside


@pytest.mark.parametrize("name", ["torch", "genai-fp32", "genai-half", "genai-int4", "torch-last"])
def test_a_decoder_with_caches_and_a_tokenizer_has_the_task_text_generation(made, name):
    facts = dict(find(made(name)).facts)
    assert find(made(name)).task == find(made(name) / "model.onnx").task == "text-generation"
    assert facts["weights"] == ("mixed" if name == "genai-int4" else "float")
    assert facts["packaged"] == ("yes" if "genai" in name else "no")


def test_the_fact_logits_is_last_if_the_graph_declares_one_token(made):
    assert find(made("genai-last")).facts["logits"] == "last"
    assert find(made("genai-fp32")).facts["logits"] == "all"


def test_the_fact_weights_is_quantized_if_no_float_matrix_is_left(made):
    assert find(made("genai-int4-tied")).facts["weights"] == "quantized"


def test_a_decoder_without_a_tokenizer_has_the_task_of_any_graph(made, tmp_path):
    shutil.copy(made("torch") / "model.onnx", tmp_path)
    assert find(tmp_path).task == "graph"


def test_the_task_of_a_drupe_package_comes_from_its_record(tmp_path):
    write_graph(tmp_path / "model.onnx")
    (tmp_path / "drupe.json").write_text(json.dumps({"task": "feature-extraction"}))
    assert find(tmp_path).task == "feature-extraction"


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 40, b"not a graph"])
def test_the_error_for_a_file_that_is_not_a_graph_names_it(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"'model\.onnx' is not an ONNX graph"):
        find(tmp_path)


def test_the_error_for_a_configuration_that_is_not_json_names_it(tmp_path):
    write_graph(tmp_path / "model.onnx")
    (tmp_path / "genai_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"genai_config\.json is not JSON"):
        find(tmp_path)


def test_a_merged_decoder_is_refused_before_the_work(tmp_path):
    from drupe_onnx_models.adopt_graph import AdoptGraph

    path = write_graph(tmp_path / "decoder_model_merged.onnx")
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1]))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="merged decoder"):
        AdoptGraph().refuse(find(path))


def test_resolving_loads_neither_numpy_nor_onnx(made):
    code = (
        "import sys; from drupe_onnx_models.resolving import resolve; "
        f"assert resolve({str(made('genai-int4'))!r}).task == 'text-generation'; "
        "print(sorted({'numpy', 'onnx', 'onnx_ir'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
