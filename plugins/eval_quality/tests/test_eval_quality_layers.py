"""The evaluator `layers`: what each layer costs, on its own and behind all layers before it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import drupe
from drupe.api import ModelError, UsageError

LAYERS = ["embedding", "layer=0", "layer=1", "head"]


def measured(package: Path, against: Path | None, **settings: object) -> dict[str, float]:
    return {each.name: each.value for each in drupe.evaluate(package, against, evaluator="layers", **settings)}


def costs(metrics: dict[str, float]) -> dict[str, float]:
    return {name: metrics[f"layer_divergence[{name}]"] for name in LAYERS}


def test_only_the_layer_that_was_changed_costs_something(
    checkpoint: Path, package: Callable[..., Path], tmp_path: Path
) -> None:
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = weights[name] + np.float32(0.05) * np.sign(weights[name])
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    metrics = measured(package(checkpoint, "fp32"), other, tokens=32)
    found = costs(metrics)
    assert {name for name, cost in found.items() if cost > 1e-6} == {"layer=1"}
    assert found["layer=1"] == pytest.approx(metrics["kl_divergence"], rel=1e-3)
    assert metrics["hidden_error[layer=0]"] < 1e-5 < metrics["hidden_error[layer=1]"]


def test_the_whole_package_is_what_quality_measures_and_about_the_sum_of_its_layers(
    checkpoint: Path, package: Callable[..., Path]
) -> None:
    metrics = measured(package(checkpoint, "int4"), checkpoint, tokens=64)
    assert all(cost > 0 for cost in costs(metrics).values())
    assert sum(costs(metrics).values()) == pytest.approx(metrics["kl_divergence"], rel=0.5)
    quality = drupe.evaluate(package(checkpoint, "int4"), checkpoint, tokens=63)  # the first token is only read there
    assert metrics["kl_divergence"] == pytest.approx(quality[0].value, rel=0.1)


def test_packages_are_compared_with_packages(checkpoint: Path, package: Callable[..., Path]) -> None:
    one, other = package(checkpoint, "int4"), package(checkpoint, "fp32")
    assert costs(measured(one, other, tokens=32)) == pytest.approx(
        costs(measured(one, checkpoint, tokens=32)), rel=1e-3
    )
    assert max(costs(measured(one, one, tokens=32)).values()) < 1e-6


def test_what_cannot_be_compared_is_said(checkpoint: Path, package: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    model.config.num_hidden_layers = 1
    del model.model.layers[1]
    shallow = Path(shutil.copytree(checkpoint, tmp_path / "shallow"))
    model.save_pretrained(shallow)
    with pytest.raises(ModelError, match="the package has 2 layers, and the reference has 1"):
        measured(package(checkpoint, "fp32"), shallow)
    with pytest.raises(UsageError, match="compared with those of another model"):
        measured(package(checkpoint, "fp32"), None)


def test_a_rotated_package_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    drupe.optimize(checkpoint, tmp_path / "rotated", precision="int4", prepare=["rotate"], verify=False)
    with pytest.raises(ModelError, match="nothing in common") as error:
        measured(tmp_path / "rotated", checkpoint, tokens=32)
    assert "--prepare rotate" in str(error.value)


def test_a_tokenizer_may_put_tokens_before_the_text_and_a_text_may_be_too_short(
    checkpoint_with_beginning: Path, package: Callable[..., Path], text: Path, tmp_path: Path
) -> None:
    made = package(checkpoint_with_beginning, "int4")
    assert min(costs(measured(made, checkpoint_with_beginning, tokens=40)).values()) > 0
    assert min(costs(measured(made, checkpoint_with_beginning, evaluation_data=str(text))).values()) > 0
    (tmp_path / "short.txt").write_text("a text of 24 tokens here")
    with pytest.raises(UsageError, match="--tokens 24"):
        measured(made, checkpoint_with_beginning, evaluation_data=str(tmp_path / "short.txt"), tokens=30)


def test_layers_that_get_inputs_of_their_own_are_measured(tmp_path: Path) -> None:
    from decoder_families import make

    source = make("gemma3n_text", tmp_path / "model")[0]
    drupe.optimize(source, tmp_path / "out", precision="int4", verify=False)
    metrics = measured(tmp_path / "out", source, tokens=16)
    alone = [value for name, value in metrics.items() if name.startswith("layer_divergence")]
    assert len(alone) == 9 and min(alone) > 0
    assert sum(alone) == pytest.approx(metrics["kl_divergence"], rel=1)
