"""The fact `weights` after `repack-weights`, for checkpoints with and without quantized matrices."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from packed import quantize_checkpoint

from drupe.api import Context, Model, Target, registry
from drupe_checkpoints import open_checkpoint
from drupe_quant_rtn.quantize_weights import QuantizeWeights
from drupe_quant_rtn.repack_weights import RepackWeights, RepackWeightsConfig


@pytest.fixture(scope="module")
def cpu() -> Target:
    return registry().provider("cpu").target()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint(tmp_path_factory.mktemp("llama") / "source", tie_word_embeddings=False)


def repacked(folder: Path, cpu: Target) -> Model:
    build = registry().passes.make("build-decoder")
    context = Context(cpu, folder)
    built = build.run(Model("hf", folder, payload=open_checkpoint(folder)), build.Config(), context)
    assert built.facts["weights"] == "float"
    return RepackWeights().run(built, RepackWeightsConfig(), context)


def test_weights_of_a_float_checkpoint_stay_float(source: Path, cpu: Target) -> None:
    assert repacked(source, cpu).facts["weights"] == "float"


def test_weights_of_a_quantized_checkpoint_are_mixed_after_repacking(source: Path, cpu: Target, tmp_path: Path) -> None:
    quantize_checkpoint(source, tmp_path / "packed", "gptq")
    assert repacked(tmp_path / "packed", cpu).facts["weights"] == "mixed"


def test_quantize_and_repack_accept_float_and_mixed_weights() -> None:
    taken = QuantizeWeights.requires.facts["weights"]
    assert taken == RepackWeights.requires.facts["weights"] == ("float", "mixed")
    assert "weights" not in RepackWeights.ensures.facts
