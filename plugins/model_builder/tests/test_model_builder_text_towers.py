"""The text part of a model for text and images or sound computes what the whole model computes for text."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import text_towers
from safetensors.numpy import load_file, save_file

from drupe.api import ModelError, Target, registry, target_of
from drupe_checkpoints import Checkpoint
from drupe_model_builder.finding import composition_of

PROMPT = [5, 71, 33, 90, 12, 12, 48, 7, 66, 23, 81, 44, 9, 9, 31, 77, 3, 50, 18, 62]
"""Longer than every window."""


@pytest.fixture(scope="module")
def processor() -> Target:
    """onnxruntime's processor, with the table of the installed version."""
    found = registry()
    return target_of(found.provider("cpu"), found)


@pytest.mark.parametrize("name", text_towers.CASES)
def test_a_text_part_agrees_with_the_whole_model(
    name: str, kit: SimpleNamespace, processor: Target, tmp_path: Path
) -> None:
    import torch

    checkpoint, model = text_towers.make(name, tmp_path / "checkpoint")
    package = kit.build(checkpoint, processor, tmp_path / "out", weights="float32", all_logits=True)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([PROMPT])).logits[0].numpy()
    assert expected.std() > 0.02  # or agreement would say nothing
    stepper = kit.Stepper(package)
    logits = np.concatenate([stepper([PROMPT[:12]])[0], stepper([PROMPT[12:]])[0]])
    assert float(np.abs(logits - expected).max()) < 1e-4 * float(np.abs(expected).max())


def rewritten(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    """The checkpoint with other contents."""
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: np.ascontiguousarray(each) for name, each in tensors.items()}, folder / "model.safetensors")
    return folder


def built(folder: Path, kit: SimpleNamespace, target: Target, out: Path) -> bytes:
    """The graph's weights."""
    return (kit.build(folder, target, out) / "model.onnx.data").read_bytes()


def read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


def test_transposed_experts_as_they_are_published_are_those_of_transformers(
    kit: SimpleNamespace, processor: Target, tmp_path: Path
) -> None:
    folder, _ = text_towers.make("qwen3_vl_moe", tmp_path / "checkpoint")
    expected = built(folder, kit, processor, tmp_path / "expected")
    config, tensors = read(folder)
    merged = [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]
    assert merged
    rewritten(folder, config, tensors | {name: tensors[name].swapaxes(1, 2) for name in merged})
    assert built(folder, kit, processor, tmp_path / "out") == expected


@pytest.mark.parametrize(
    ("model_type", "architecture", "sections", "prefix", "head"),
    [
        ("internvl_chat", "InternVLChatModel", ["llm_config"], "language_model.model.", "language_model."),
        ("deepseek_vl_v2", "DeepseekVLV2ForCausalLM", ["language_config"], "language.model.", "language."),
        ("qwen2_5_omni", "Qwen2_5OmniModel", ["thinker_config", "text_config"], "thinker.model.", "thinker."),
        ("acme_vlm", "AcmeForConditionalGeneration", ["text_config"], "model.text_model.", ""),
    ],
)
def test_a_text_part_is_found_in_any_section_and_behind_any_prefix(
    model_type: str, architecture: str, sections: list[str], prefix: str, head: str,
    kit: SimpleNamespace, processor: Target, tmp_path: Path,
) -> None:  # fmt: skip
    folder = kit.make_checkpoint(tmp_path / "checkpoint", "qwen2", tie_word_embeddings=False)
    expected = built(folder, kit, processor, tmp_path / "expected")
    config, tensors = read(folder)
    wrapped: dict[str, Any] = config
    for section in reversed(sections):
        wrapped = {section: wrapped}
    names = {
        name: head + name if name.startswith("lm_head") else prefix + name.removeprefix("model.") for name in tensors
    }
    moved = {names[name]: tensor for name, tensor in tensors.items()}
    other = {f"talker.{name}": tensor[:8] for name, tensor in tensors.items() if ".1." not in name}
    tower = {"vision_tower.layers.0.mlp.up_proj.weight": np.ones((4, 4), np.float32)}
    rewritten(folder, {"model_type": model_type, "architectures": [architecture], **wrapped}, moved | other | tower)
    assert built(folder, kit, processor, tmp_path / "out") == expected


def test_adapters_for_images_and_sound_are_left_out(kit: SimpleNamespace, processor: Target, tmp_path: Path) -> None:
    folder = kit.make_checkpoint(tmp_path / "checkpoint", "phi3")
    expected = built(folder, kit, processor, tmp_path / "expected")
    config, tensors = read(folder)
    moved = {name.replace("_proj.weight", "_proj.base_layer.weight"): each for name, each in tensors.items()}
    assert moved.keys() != tensors.keys()
    adapter = {"model.layers.0.self_attn.qkv_proj.lora_A.vision.weight": np.ones((4, 64), np.float32),
               "model.embed_tokens_extend.image_embed.img_projection.0.bias": np.ones(4, np.float32)}  # fmt: skip
    told = {**config, "model_type": "phi4mm", "architectures": ["Phi4MMForCausalLM"], "embd_layer": {}}
    rewritten(folder, told, moved | adapter)
    assert built(folder, kit, processor, tmp_path / "out") == expected


def test_a_tensor_of_the_text_part_that_config_json_lacks_is_refused(
    kit: SimpleNamespace, processor: Target, tmp_path: Path
) -> None:
    folder, _ = text_towers.make("llava", tmp_path / "checkpoint")
    config, tensors = read(folder)
    extra = {"language_model.model.layers.0.self_attn.q_proj.bias": np.ones(64, np.float32)}
    rewritten(folder, config, tensors | extra)
    with pytest.raises(ModelError, match="holds a tensor that a llama model"):
        kit.build(folder, processor, tmp_path / "out")


def test_a_text_part_that_reads_its_prompt_in_both_directions_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    said = {"model_type": "paligemma", "text_config": {"model_type": "gemma2"}}
    (folder / "config.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match=r"use_bidirectional_attention = true in config\.json lets each token"):
        composition_of(Checkpoint.open_folder(folder))
