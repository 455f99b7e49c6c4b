"""A small random model of every kind of wrapper around a language model: for text and images or sound.

Only the language model's tensors are compared; the towers beside it are as small as their classes allow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny
from decoder_families import DELTA, EXPERTS, LATENTS, ROUTERS, SIZES, TWO_TYPES, WINDOW

TOWER: Mapping[str, Any] = {
    "hidden_size": 32, "embed_dim": 32, "intermediate_size": 48, "num_hidden_layers": 1, "depth": 1, "num_layers": 1,
    "encoder_layers": 1, "num_attention_heads": 2, "num_heads": 2, "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48, "d_model": 32, "image_size": 28, "patch_size": 14, "out_hidden_size": 64,
    "vision_output_dim": 64, "projection_dim": 32, "conf_num_attention_heads": 2, "conf_num_hidden_layers": 1,
}  # fmt: skip
"""Sizes of towers, of which each kind takes those that it knows."""
MROPE = {"rope_type": "default", "rope_theta": 500.0, "mrope_section": [4, 6, 6]}
HALF = {"rope_type": "default", "rope_theta": 500.0, "mrope_section": [2, 3, 3], "partial_rotary_factor": 0.5}


@dataclass(frozen=True)
class Wrapped:
    """One wrapper. text: the `model_type` of its text part; empty where the wrapper has a class of its own for it.

    settings: what differs from SIZES in the text part. outer: keys beside the sections. flat: whether config.json holds
    the text part's settings on the top level, as the published files do. published: the beginning of names that
    transformers writes otherwise than the published files have it, and what it is there. tower: the `model_type` of
    another tower for images, where the wrapper's own needs a library that tests do without.
    """

    text: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    outer: Mapping[str, Any] = field(default_factory=dict)
    flat: bool = False
    published: tuple[str, str] | None = None
    tower: str = ""


CASES: Mapping[str, Wrapped] = {
    "aria": Wrapped("", {"moe_num_experts": 8, "moe_topk": 3, "moe_num_shared_experts": 1, "pad_token_id": 2}),
    "aya_vision": Wrapped("cohere2", {"head_dim": 16, "sliding_window": WINDOW, "logit_scale": 1.0}),
    "cohere2_vision": Wrapped("cohere2", {"head_dim": 16, "sliding_window": WINDOW, "logit_scale": 1.0}),
    "cohere_compass": Wrapped("", {"head_dim": 32, "sliding_window": WINDOW, "layer_types": TWO_TYPES,
                                   "rope_parameters": {"sliding_attention": MROPE, "full_attention": None}}),
    "deepseek_vl": Wrapped("llama"),
    "emu3": Wrapped("", {"pad_token_id": 2}, {"vocabulary_map": {"<image>": 5}}),
    "exaone4_5": Wrapped("exaone4", {"sliding_window": WINDOW}),
    "fuyu": Wrapped("persimmon"),
    "gemma3": Wrapped("", {"head_dim": 32, "sliding_window": WINDOW, "num_hidden_layers": 7}),
    "gemma3n": Wrapped("", {"head_dim": 32, "sliding_window": WINDOW, "num_hidden_layers": 7, "num_kv_shared_layers": 2,
                            "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 70, "laurel_rank": 24,
                            "activation_sparsity_pattern": [0.9] * 3 + [0.0] * 4}, tower="siglip_vision_model"),
    "gemma4": Wrapped("", {"head_dim": 16, "global_head_dim": 32, "sliding_window": WINDOW, "num_hidden_layers": 7,
                           "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": tiny.VOCABULARY,
                           "pad_token_id": 0}),
    "gemma4, experts": Wrapped("", {"head_dim": 16, "global_head_dim": 32, "sliding_window": WINDOW,
                                    "num_hidden_layers": 7, "hidden_size_per_layer_input": 0, "pad_token_id": 0,
                                    "enable_moe_block": True, "num_experts": 8, "top_k_experts": 3,
                                    "moe_intermediate_size": 32}),
    "gemma4_unified": Wrapped("", {"head_dim": 16, "global_head_dim": 32, "num_hidden_layers": 7, "pad_token_id": 0}),
    "glm4v": Wrapped("", {"rope_parameters": HALF, "num_attention_heads": 2, "num_key_value_heads": 1}),
    "glm4v_moe": Wrapped("", {**EXPERTS, "n_routed_experts": 8, "n_shared_experts": 1, "rope_parameters": HALF,
                              "head_dim": 32, "use_qk_norm": True}),
    "glm46v": Wrapped("glm4v_text", {"rope_parameters": HALF, "num_attention_heads": 2, "num_key_value_heads": 1}),
    "glm_ocr": Wrapped("", {"rope_parameters": {**HALF, "partial_rotary_factor": 1.0}, "head_dim": 16}),
    "granite_docling": Wrapped("", {"residual_multiplier": 0.4, "logits_scaling": 2.0}),
    "granite_speech": Wrapped("granite", {"residual_multiplier": 0.4}),
    "hunyuan_vl": Wrapped("", {"head_dim": 32, "rope_parameters": {
        "rope_type": "xdrope", "rope_theta": 500.0, "alpha": 50.0, "factor": 1.0, "xdrope_section": [4, 4, 4, 4]}}),
    "idefics2": Wrapped("mistral", {"sliding_window": WINDOW}),
    "idefics3": Wrapped("llama"),
    "internvl": Wrapped("qwen2"),
    "kimi_k25": Wrapped("deepseek_v3", {**LATENTS, **EXPERTS, "n_routed_experts": 8, "n_group": 1, "topk_group": 1,
                                        "first_k_dense_replace": 1, "num_hidden_layers": 3, "pad_token_id": 2},
                        published=("language_model.model.blocks.", "language_model.model.layers.")),
    "lfm2_vl": Wrapped("lfm2", {"layer_types": ["conv", "full_attention", "conv", "full_attention", "conv"],
                                "block_multiple_of": 32}),
    "llama4": Wrapped("", {"head_dim": 32, "intermediate_size_mlp": 80, "num_local_experts": 8,
                           "attention_chunk_size": 8, "interleave_moe_layer_step": 2, "num_hidden_layers": 4}),
    "llava": Wrapped("llama"),
    "llava_next": Wrapped("mistral", {"sliding_window": WINDOW}),
    "llava_onevision": Wrapped("qwen2", outer={"tie_word_embeddings": True}),
    "mistral3": Wrapped("ministral3", {"tie_word_embeddings": False}, {"tie_word_embeddings": False}),
    "mistral3, mistral": Wrapped("mistral", {"sliding_window": None}, {"tie_word_embeddings": False}),
    "mistral3, mistral4": Wrapped("mistral4", {**LATENTS, **EXPERTS, "n_routed_experts": 8, "num_hidden_layers": 2,
                                               "pad_token_id": 2}, {"tie_word_embeddings": False}),
    "mllama": Wrapped("", {"cross_attention_layers": [1, 3], "pad_token_id": 2}),
    "muse_glimmer": Wrapped("", {"head_dim": 32, "sliding_window": WINDOW, "final_logit_softcapping": 2.0}),
    "paddleocr_vl": Wrapped("", {"head_dim": 32, "rope_parameters": MROPE}),
    "qwen2_5_omni_thinker": Wrapped("", {"rope_parameters": {**MROPE, "mrope_section": [2, 3, 3]}}),
    "qwen2_5_vl": Wrapped("", {"rope_parameters": {**MROPE, "mrope_section": [2, 3, 3]}}),
    "qwen2_audio": Wrapped("qwen2"),
    "qwen2_vl": Wrapped("", {"rope_parameters": {**MROPE, "mrope_section": [2, 3, 3]}}),
    "qwen2_vl, flat": Wrapped("", {"rope_parameters": {**MROPE, "mrope_section": [2, 3, 3]}}, flat=True),
    "qwen3_5": Wrapped("", {**DELTA, "head_dim": 64, "num_hidden_layers": 4, "rope_parameters": {
        "rope_type": "default", "rope_theta": 500.0, "mrope_interleaved": True, "mrope_section": [4, 2, 2],
        "partial_rotary_factor": 0.25}}),
    "qwen3_5_moe": Wrapped("", {**EXPERTS, **DELTA, "head_dim": 32, "num_experts": 8, "num_hidden_layers": 4,
                                "shared_expert_intermediate_size": 48}),
    "qwen3_omni_moe_thinker": Wrapped("", {**EXPERTS, "num_experts": 8, "head_dim": 32, "rope_parameters": {
        **MROPE, "mrope_interleaved": True}}),
    "qwen3_vl": Wrapped("", {"head_dim": 32, "rope_parameters": {**MROPE, "mrope_interleaved": True}}),
    "qwen3_vl_moe": Wrapped("", {**EXPERTS, "num_experts": 8, "head_dim": 32, "rope_parameters": {
        **MROPE, "mrope_interleaved": True}}),
    "voxtral": Wrapped("llama"),
}  # fmt: skip
"""By name, which begins with the wrapper's `model_type`."""


def make(name: str, folder: Path) -> tuple[Path, Any]:
    """Write a case's checkpoint. Returns it, and the model in transformers."""
    import torch

    case = CASES[name]
    torch.manual_seed(7)
    model = _model(name.partition(",")[0], case).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            centre = 1.0 if parameter.ndim == 1 and float(parameter.float().mean()) == 1.0 else 0.0
            spread = 0.6 if parameter_name.endswith(ROUTERS) else 0.15
            parameter.copy_(centre + torch.randn(parameter.shape) * spread)
    model.tie_weights()
    model.float().save_pretrained(folder)
    tiny.write_tokenizer(folder)
    if case.flat:
        _flatten(folder / "config.json")
    if case.published is not None:
        _rename(folder / "model.safetensors", *case.published)
    return folder, model


def _model(kind: str, case: Wrapped) -> Any:
    import transformers
    from transformers import CONFIG_MAPPING

    made = CONFIG_MAPPING[kind]
    usual, sections = made(), {}
    for key in made.sub_configs:
        usual_section = getattr(usual, key, None)
        if key == "text_config":
            sections[key] = {**SIZES, **case.settings, **({"model_type": case.text} if case.text else {})}
        elif usual_section is not None:
            known = usual_section if isinstance(usual_section, dict) else usual_section.to_dict()
            sections[key] = {name: value for name, value in TOWER.items() if name in known}
            sections[key] |= {"model_type": known["model_type"]} if "model_type" in known else {}
    config = made(**sections, **case.outer)
    if case.tower:
        _replace_tower(config, case.tower)
    for automatic in (transformers.AutoModelForImageTextToText, transformers.AutoModelForMultimodalLM):
        if type(config) in automatic._model_mapping:
            return automatic.from_config(config)
    raise AssertionError(f"no class for {kind}")


def _rename(path: Path, written: str, published: str) -> None:
    """Give the tensors of a file whose names begin so their published names."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    assert any(name.startswith(written) for name in tensors)
    save_file({name.replace(written, published): each for name, each in tensors.items()}, path)


def _replace_tower(config: Any, kind: str) -> None:
    """Another kind of tower for images, which has what the wrapper reads of its own."""
    from transformers import CONFIG_MAPPING

    own, made = config.vision_config, CONFIG_MAPPING[kind]
    known = made().to_dict()
    tower = made(**{name: value for name, value in TOWER.items() if name in known})
    for name, value in vars(own).items():
        if not hasattr(tower, name):
            setattr(tower, name, value)
    object.__setattr__(config, "vision_config", tower)  # around the check of the field's type


def _flatten(path: Path) -> None:
    """The text part's settings on the top level."""
    config = json.loads(path.read_text(encoding="utf-8"))
    inner = config.pop("text_config")
    path.write_text(json.dumps({**inner, **config}), encoding="utf-8")
