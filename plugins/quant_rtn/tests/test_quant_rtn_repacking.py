"""The fact `weights` after `repack-weights`, for checkpoints with and without quantized matrices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from packed import quantize_checkpoint

from drupe.api import Context, Model, Target, UsageError, registry
from drupe_blockquant import Quantized, Scheme, dequantize_rows
from drupe_checkpoints import open_checkpoint
from drupe_nbits import find_experts
from drupe_onnx import Files, capabilities_of, expression_of
from drupe_quant_rtn.prequantized_experts import take_over_experts
from drupe_quant_rtn.quantize_weights import QuantizeWeights
from drupe_quant_rtn.repack_weights import RepackWeights, RepackWeightsConfig


@pytest.fixture(scope="module")
def cpu() -> Target:
    return registry().provider("cpu").target()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint(tmp_path_factory.mktemp("llama") / "source", tie_word_embeddings=False)


def built(folder: Path, cpu: Target) -> Model:
    build = registry().passes.make("build-decoder")
    return build.run(Model("hf", folder, payload=open_checkpoint(folder)), build.Config(), Context(cpu, folder))


def repacked(folder: Path, cpu: Target) -> Model:
    model = built(folder, cpu)
    assert model.facts["weights"] == "float"
    return RepackWeights().run(model, RepackWeightsConfig(), Context(cpu, folder))


def test_weights_of_a_float_checkpoint_stay_float(source: Path, cpu: Target) -> None:
    assert repacked(source, cpu).facts["weights"] == "float"


def test_weights_of_a_quantized_checkpoint_are_mixed_after_repacking(source: Path, cpu: Target, tmp_path: Path) -> None:
    quantize_checkpoint(source, tmp_path / "packed", "gptq")
    assert repacked(tmp_path / "packed", cpu).facts["weights"] == "mixed"


def test_quantize_and_repack_accept_float_and_mixed_weights() -> None:
    taken = QuantizeWeights.requires.facts["weights"]
    assert taken == RepackWeights.requires.facts["weights"] == ("float", "mixed")
    assert "weights" not in RepackWeights.ensures.facts


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "head_dim": 16}


@pytest.mark.parametrize(("kind", "symmetric"), [("gptq", False), ("gptq", True), ("awq", False)])
def test_packed_experts_are_taken_over_to_the_bit(kind: str, symmetric: bool, cpu: Target, tmp_path: Path) -> None:
    source = tiny.make_checkpoint(tmp_path / "source", "qwen3_moe", **EXPERTS)
    quantize_checkpoint(source, tmp_path / "packed", kind, symmetric=symmetric)
    model = repacked(tmp_path / "packed", cpu)
    graph = model.payload.component.graph
    assert not find_experts(graph)
    assert "drupe.quantized_again" not in model.payload.component.metadata_props
    (held, *_) = find_experts(built(tmp_path / "packed", cpu).payload.component.graph)
    node = next(node for node in graph if node.op_type == "QMoE")
    scheme = Scheme(4, 32, symmetric)
    with Files() as files:
        for matrices, place, zeros in ((held.up, 2, 11), (held.down, 5, 12)):
            given = [node.inputs[place], node.inputs[place + 1], None if symmetric else node.inputs[zeros]]
            parts = [None if each is None else expression_of(each).value(files) for each in given]
            rows = [None if each is None else each.reshape(-1, each.shape[-1]) for each in parts]
            rows[0] = rows[0].reshape(len(rows[0]), -1, 16)
            values = dequantize_rows(Quantized(*rows, None), scheme, matrices.columns)
            np.testing.assert_allclose(values, matrices.rows.value(files), rtol=1e-6)


def test_experts_whose_columns_are_reordered_are_quantized_again_and_listed(cpu: Target, tmp_path: Path) -> None:
    source = tiny.make_checkpoint(tmp_path / "source", "qwen3_moe", **EXPERTS)
    quantize_checkpoint(source, tmp_path / "packed", "gptq", act_order=True)
    component = repacked(tmp_path / "packed", cpu).payload.component
    names = [site.name for site in find_experts(component.graph)]
    assert names
    assert set(names) <= set(json.loads(component.metadata_props["drupe.quantized_again"]))


def test_another_block_size_than_that_of_packed_experts_is_refused(cpu: Target, tmp_path: Path) -> None:
    source = tiny.make_checkpoint(tmp_path / "source", "qwen3_moe", **EXPERTS)
    quantize_checkpoint(source, tmp_path / "packed", "gptq")
    graph = built(tmp_path / "packed", cpu).payload.component.graph
    (site, *_) = find_experts(graph)
    with pytest.raises(UsageError, match="already quantized, in blocks of 32"):
        take_over_experts(graph, site, 64, capabilities_of(cpu))
