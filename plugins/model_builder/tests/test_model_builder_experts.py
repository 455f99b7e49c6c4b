"""Experts: checkpoints in both forms of transformers, and configurations and targets that cannot be built."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decoder_families
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from drupe.api import DrupeError, ModelError, PlanError, Target, replace
from drupe_checkpoints import open_checkpoint
from drupe_model_builder.checkpoint_tensors import weights_of
from drupe_model_builder.finding import composition_of
from drupe_onnx import Files

DIALECTS = (
    "aria_text", "axk1", "bailing_hybrid", "deepseek_v3", "ernie4_5_moe", "flint", "granitemoe", "hy_v3", "jamba",
    "kimi_linear", "kolibri1", "laguna", "longcat_flash", "mimo_v2_flash", "mixtral", "phimoe", "qwen3_moe",
)  # fmt: skip
"""Families whose names differ in transformers' own form, each in another way."""


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_families.make("qwen3_moe", tmp_path_factory.mktemp("qwen"))[0]


@pytest.mark.parametrize("name", DIALECTS)
def test_merged_experts_are_the_same_tensors(name: str, tmp_path: Path) -> None:
    """transformers 5 can save its own form, with one tensor for all experts."""
    from transformers import AutoModelForCausalLM

    single, _ = decoder_families.make(name, tmp_path)
    merged = tmp_path / "merged"
    AutoModelForCausalLM.from_pretrained(single).save_pretrained(merged, save_original_format=False)
    assert any(tensor.endswith("experts.gate_up_proj") for tensor in open_checkpoint(merged).tensors())
    assert_same(tensors_of(single), tensors_of(merged))


def test_experts_of_llama4_with_tensors_of_their_own_are_the_merged_ones(tmp_path: Path) -> None:
    """Programs that quantize save them so: one linear layer for each matrix."""
    folder, _ = decoder_families.make("llama4_text", tmp_path)
    expected, path = tensors_of(folder), folder / "model.safetensors"
    stored: dict[str, np.ndarray] = {}
    for name, values in load_file(path).items():
        before, merged, kind = name.rpartition("experts.")
        if not merged or kind not in ("gate_up_proj", "down_proj"):
            stored[name] = values
            continue
        for number, matrix in enumerate(values):
            called = ["down_proj"] if kind == "down_proj" else ["gate_proj", "up_proj"]
            for part, each in zip(called, np.split(matrix.T, len(called)), strict=True):
                stored[f"{before}experts.{number}.{part}.weight"] = np.ascontiguousarray(each)
    assert len(stored) > len(load_file(path))
    save_file(stored, path, {"format": "pt"})
    assert_same(tensors_of(folder), expected)


def tensors_of(folder: Path) -> dict[str, np.ndarray]:
    """A checkpoint's tensors by the decoder's names."""
    checkpoint = open_checkpoint(folder)
    decoder = composition_of(checkpoint)
    tensors = weights_of(checkpoint, decoder).tensors
    with Files() as files:
        return {each: np.array(tensors[each].value(files)) for each in decoder.tensors()}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for tensor, values in expected.items():
        np.testing.assert_array_equal(values, found[tensor], tensor)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_local_experts": 9}, "lacks"),
        ({"num_local_experts": 7}, "mlp.gate.weight has the shape [8, 64]"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok = 9 is more than num_local_experts = 8"),
        ({"moe_intermediate_size": 32}, "gate_proj"),
        ({"mlp_only_layers": [7]}, "mlp_only_layers"),
        ({"hidden_act": "gelu"}, "experts with the activation function hidden_act = 'gelu'"),
    ],
)
def test_a_configuration_that_does_not_fit_the_experts_is_refused(
    change: dict[str, Any], said: str, qwen: Path, kit: SimpleNamespace, tmp_path: Path
) -> None:
    import shutil

    folder = shutil.copytree(qwen, tmp_path / "changed")
    kit.edit_config(folder, **change)
    checkpoint = open_checkpoint(folder)
    with pytest.raises(DrupeError) as caught:
        weights_of(checkpoint, composition_of(checkpoint))
    assert said in caught.value.what


def test_a_target_without_an_operator_for_experts_is_refused(
    qwen: Path, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match="neither MoE nor QMoE"):
        kit.build(qwen, cpu, tmp_path / "out")


def test_experts_in_halves_that_are_wider_than_half_the_hidden_size_are_refused(
    kit: SimpleNamespace, cpu: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "gemma4_text, experts"
    case = decoder_families.CASES[name]
    wide = replace(case, settings={**case.settings, "moe_intermediate_size": 48})
    monkeypatch.setattr(decoder_families, "EVERY_CASE", {name: wide})
    checkpoint, _ = decoder_families.make(name, tmp_path)
    with pytest.raises(ModelError, match="experts of 48 values"):
        kit.build(checkpoint, cpu, tmp_path / "out")
