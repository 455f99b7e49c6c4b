"""`optimize` with graphs from every exporter as sources: quantized, packaged, checked and compared."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tiny import make_checkpoint
from torch_graphs import export_classifier

import drupe
from drupe.api import ModelError

DECODERS = ("torch", "torch-half", "genai-last", "genai-int4-half", "genai-norms-inside")
TEXT = {"tokens": 64, "provider": "cpu"}


@pytest.mark.parametrize("name", DECODERS)
def test_a_package_of_a_decoder_generates_text_and_is_close_to_its_source(name, made, tmp_path):
    outcome = drupe.optimize(made(name), tmp_path / "out", **TEXT)
    assert outcome.check.metrics["kl_divergence"] < 0.2
    assert outcome.bytes < outcome.source_bytes * 1.2
    assert (tmp_path / "out" / "genai_config.json").is_file()
    with drupe.open(tmp_path / "out") as session:
        session.generate("def", max_new_tokens=4)
        assert session.timing.new_tokens > 0


@pytest.mark.parametrize("name", ["torch", "genai-half"])
def test_a_floating_point_package_has_the_same_logits_as_its_source(name, made, tmp_path):
    outcome = drupe.optimize(made(name), tmp_path / "out", precision="fp32", **TEXT)
    assert outcome.check.metrics["kl_divergence"] < 1e-6


def test_an_exported_graph_can_be_compared_with_its_checkpoint(tmp_path, made):
    metrics = drupe.evaluate(made("genai-fp32"), made("genai-fp32").parent / "checkpoint", **TEXT)
    assert next(each.value for each in metrics if each.name == "kl_divergence") < 1e-6


@pytest.mark.parametrize("name", ["torch"])
def test_calibration_runs_block_by_block_with_graphs_of_any_exporter(name, made, tmp_path):
    options = {"calibration_sequences": 4, "calibration_length": 64, **TEXT}
    best = drupe.optimize(made(name), tmp_path / "best", quality="best", **options)
    fast = drupe.optimize(made(name), tmp_path / "fast", quality="fast", **TEXT)
    assert best.check.metrics["kl_divergence"] < fast.check.metrics["kl_divergence"]


def test_quantized_matrices_stay_as_they_are_and_the_others_are_quantized(made, tmp_path):
    mixed = drupe.optimize(made("genai-int4"), tmp_path / "mixed", **TEXT)
    whole = drupe.optimize(made("genai-int4-tied"), tmp_path / "whole", **TEXT)
    assert "quantize-weights" in mixed.steps and "quantize-weights" not in whole.steps
    assert mixed.bytes < 0.75 * mixed.source_bytes
    assert whole.check.metrics["kl_divergence"] == pytest.approx(0, abs=1e-6)


def test_what_stays_quantized_at_another_precision_is_said(made, tmp_path):
    """The matrices of a mixed graph: those that are quantized already keep their levels, and the others are changed."""
    for precision in ("int8", "fp32"):
        outcome = drupe.optimize(
            made("genai-int4"), tmp_path / precision, precision=precision, provider="cpu", verify=False
        )
        told = [each.what for each in outcome.notices if each.about == "weights"]
        assert len(told) == 1 and "are quantized already, to 4 bits, and keep their levels" in told[0]
    outcome = drupe.optimize(made("genai-int4"), tmp_path / "int4", provider="cpu", verify=False)
    assert not [each for each in outcome.notices if each.about == "weights"]


def test_a_package_of_drupe_can_be_a_source(made, tmp_path):
    first = drupe.optimize(made("torch"), tmp_path / "first", verify=False, provider="cpu")
    again = drupe.optimize(tmp_path / "first", tmp_path / "again", **TEXT)
    assert again.check.metrics["kl_divergence"] == pytest.approx(0, abs=1e-6)
    assert again.bytes == pytest.approx(first.bytes, rel=0.05)


def test_quantizing_a_float_package_of_drupe_gives_the_same_as_quantizing_its_checkpoint(tmp_path):
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    direct = drupe.optimize(checkpoint, tmp_path / "direct", **TEXT)
    drupe.optimize(checkpoint, tmp_path / "floats", precision="fp32", verify=False, provider="cpu")
    by_graph = drupe.optimize(tmp_path / "floats", tmp_path / "by_graph", **TEXT)
    data = [(tmp_path / name / "model.onnx.data").read_bytes() for name in ("direct", "by_graph")]
    assert data[0] == data[1]
    assert by_graph.check.metrics == pytest.approx(direct.check.metrics)


def test_a_single_file_is_packaged_with_the_files_beside_it(made, tmp_path):
    folder = shutil.copytree(made("torch"), tmp_path / "source")
    (folder / "holiday.jpg").write_bytes(b"not part of the model")
    drupe.optimize(folder / "model.onnx", tmp_path / "out", verify=False, provider="cpu")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "genai_config.json", "model.onnx"} <= names
    assert "holiday.jpg" not in names


def test_the_same_plan_makes_the_same_bytes(made, tmp_path):
    drupe.optimize(made("torch"), tmp_path / "first", verify=False, provider="cpu")
    plan = drupe.plan(made("torch"), verify=False, provider="cpu")
    drupe.run(plan, tmp_path / "second")
    for name in ("model.onnx", "model.onnx.data", "genai_config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_the_exporter_option_chooses_the_import(made):
    steps = [each.name for each in drupe.plan(made("torch"), exporter="onnx", provider="cpu").passes]
    assert steps[0] == "adopt-graph"


@pytest.mark.parametrize("precision", ["int4", "int8", "fp16", "fp32"])
def test_any_other_graph_is_quantized_checked_and_compared(precision, tmp_path):
    path = export_classifier(tmp_path / "classifier.onnx")
    outcome = drupe.optimize(path, tmp_path / "out", precision=precision, provider="cpu")
    assert outcome.check.text.startswith("random inputs give finite outputs: scores")
    assert outcome.check.metrics["cosine_similarity"] > 0.99
    assert json.loads((tmp_path / "out" / "drupe.json").read_text())["task"] == "graph"
    limit = {"int4": 0.35, "int8": 0.4, "fp16": 0.6, "fp32": 1.1}[precision]
    assert outcome.bytes < limit * outcome.source_bytes
    with drupe.open(tmp_path / "out") as session:
        given = {"tokens": np.array([[1, 2, 3]]), "mask": np.ones((1, 3), np.float32)}
        assert session.run(given)["scores"].shape == (1, 10)


@pytest.mark.parametrize("opset", [9, 12])
def test_a_graph_of_an_old_opset_is_quantized(opset, tmp_path):
    path = export_classifier(tmp_path / "classifier.onnx", opset)
    outcome = drupe.optimize(path, tmp_path / "out", provider="cpu")
    assert outcome.check.metrics["cosine_similarity"] > 0.99


def test_a_decoder_without_a_tokenizer_is_compared_by_its_outputs(made, tmp_path):
    shutil.copy(made("torch") / "model.onnx", tmp_path)
    outcome = drupe.optimize(tmp_path / "model.onnx", tmp_path / "out", provider="cpu")
    assert outcome.check.metrics["cosine_similarity"] > 0.9
    assert not (tmp_path / "out" / "genai_config.json").exists()


def test_a_graph_without_a_matrix_is_refused_and_nothing_is_written(tmp_path):
    import torch
    from torch_graphs import export

    convolution = torch.nn.Conv2d(3, 4, 3).eval()
    path = export(convolution, (torch.randn(1, 3, 8, 8),), tmp_path / "m.onnx", ["image"], ["features"], {})
    with pytest.raises(ModelError, match="no matrix of float weights"):
        drupe.optimize(path, tmp_path / "out", provider="cpu")
    assert not (tmp_path / "out").exists()
    assert drupe.optimize(path, tmp_path / "floats", precision="fp32", provider="cpu").check.metrics


def test_each_part_is_quantized_checked_and_compared(made, tmp_path):
    for name in ("encoder", "decoder"):
        export_classifier(tmp_path / "m" / f"{name}.onnx")
    outcome = drupe.optimize(tmp_path / "m", tmp_path / "out", provider="cpu")
    assert {"encoder.onnx", "decoder.onnx"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert outcome.check.metrics["cosine_similarity:encoder.scores"] > 0.99
