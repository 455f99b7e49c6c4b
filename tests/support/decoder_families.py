"""A small random model of every family of decoders, with the family's awkward choices turned on.

Every tensor is random: norms that are all one and biases that are all zero hide mistakes. Families whose code is not in
transformers are made of a family that computes the same: its tensors get their names and places.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tiny

from drupe.api import Record, field

SIZES: Mapping[str, Any] = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": tiny.BOS,
    "eos_token_id": tiny.END,
    "pad_token_id": None,
}
GPT_SIZES: Mapping[str, Any] = {
    "vocab_size": tiny.VOCABULARY,
    "n_embd": 64,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 256,
    "bos_token_id": tiny.BOS,
    "eos_token_id": tiny.END,
}
WINDOW = 5
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
MINISTRAL3 = {
    "rope_type": "yarn", "rope_theta": 1000.0, "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 32.0,
    "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1000.0, "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
    "long_factor": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], "original_max_position_embeddings": 24,
}  # fmt: skip
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
         "linear_value_head_dim": 24}  # fmt: skip
GEMMA4 = {"head_dim": 16, "global_head_dim": 32, "sliding_window": WINDOW, "num_hidden_layers": 7,
          "final_logit_softcapping": 3.0}  # fmt: skip
GEMMA3N = {"head_dim": 32, "sliding_window": WINDOW, "num_hidden_layers": 7, "final_logit_softcapping": 3.0,
           "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 70, "laurel_rank": 24}  # fmt: skip
LLAMA4 = {"head_dim": 32, "intermediate_size_mlp": 80, "num_local_experts": 8, "num_experts_per_tok": 1,
          "attention_chunk_size": 8, "floor_scale": 6, "attn_scale": 0.4}  # fmt: skip
ZAMBA2 = {"num_hidden_layers": 6, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "hybrid", "mamba"],
          "num_key_value_heads": 4, "n_mamba_heads": 8, "mamba_d_state": 24, "adapter_rank": 12,
          "time_step_min": 1e-9}  # fmt: skip
MAMBA = {"mamba_n_heads": 8, "mamba_n_groups": 2, "mamba_d_state": 24, "mamba_d_conv": 4, "mamba_expand": 2}
FALCON_H1_FACTORS = {
    "ssm_multipliers": [0.5, 1.5, 0.7, 1.2, 0.8], "mlp_multipliers": [0.7, 1.4], "key_multiplier": 0.6,
    "attention_in_multiplier": 1.3, "attention_out_multiplier": 0.8, "ssm_in_multiplier": 1.2,
    "ssm_out_multiplier": 0.7, "embedding_multiplier": 3.0, "lm_head_multiplier": 0.5,
}  # fmt: skip
TWO_TYPES = ["sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention"]

LATENTS = {
    "q_lora_rank": 40, "kv_lora_rank": 32, "qk_nope_head_dim": 24, "qk_rope_head_dim": 16, "v_head_dim": 20,
    "num_key_value_heads": 4,
}  # fmt: skip
MLA_YARN = {
    "rope_type": "yarn", "rope_theta": 1000.0, "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 32.0,
    "beta_slow": 1.0, "mscale": 0.7, "mscale_all_dim": 0.9,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 3, "moe_intermediate_size": 48}
ROUTERS = (
    "gate.weight",
    "router.weight",
    "router.layer.weight",
    "gate.wg.weight",
    "router.gate.weight",
    "router.proj.weight",
    "router.classifier.weight",
)
"""Ends of names of routers. Their weights are large, so that rounding does not change the choice of experts."""


class Case(Record):
    """One small model. family: its `model_type`. settings: what differs from SIZES, or from GPT_SIZES.

    shows: what is turned on, in a few words. told_as: makes of the saved model one of a family that transformers lacks.
    rounded: changes the values of each parameter, by name, before the model is saved. headless: transformers' class has
    no head.
    """

    family: str
    shows: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=lambda: SIZES)
    told_as: Callable[[dict[str, Any], dict[str, Any]], tuple[dict[str, Any], dict[str, Any]]] | None = None
    rounded: Callable[[str, Any], Any] = lambda name, values: values
    headless: bool = False


def _gpt(family: str, shows: str, **settings: Any) -> Case:
    return Case(family, shows, settings, GPT_SIZES)


def _exaone(config: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """EXAONE 3 is Llama under other names."""
    names = {
        "model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f", "model.layers": "transformer.h",
        "input_layernorm": "ln_1", "post_attention_layernorm": "ln_2", "self_attn.o_proj": "attn.attention.out_proj",
        "self_attn": "attn.attention", "mlp.gate_proj": "mlp.c_fc_0", "mlp.up_proj": "mlp.c_fc_1",
        "mlp.down_proj": "mlp.c_proj",
    }  # fmt: skip
    keys = {
        "num_hidden_layers": "num_layers",
        "rms_norm_eps": "layer_norm_epsilon",
        "hidden_act": "activation_function",
    }
    return _config(config, "exaone", "ExaoneForCausalLM", keys), _renamed(tensors, names)


def _internlm2(config: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """InternLM 2 is Llama with query, key and value in one matrix, group by group."""
    import torch

    names = {
        "model.embed_tokens": "model.tok_embeddings", "lm_head": "output", "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm", "self_attn.o_proj": "attention.wo", "self_attn": "attention",
        "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2",
    }  # fmt: skip
    groups, size = config["num_key_value_heads"], config["head_dim"]

    def fuse(query: Any, key: Any, value: Any) -> Any:
        each = [part.reshape(groups, -1, size, part.shape[-1]) for part in (query, key, value)]
        return torch.cat(each, 1).reshape(-1, query.shape[-1])

    found = _fused(tensors, "attention.wqkv", fuse, names)
    return _config(config, "internlm2", "InternLM2ForCausalLM", {}), found


def _baichuan(config: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Baichuan 7B is Llama with query, key and value in one matrix."""
    import torch

    found = _fused(tensors, "self_attn.W_pack", lambda *parts: torch.cat(parts), {})
    return _config(config, "baichuan", "BaichuanForCausalLM", {}), found


def _chatglm(config: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """GLM-4 9B was first published as ChatGLM, with query, key and value in one matrix with a bias."""
    import torch

    names = {
        "model.embed_tokens": "transformer.embedding.word_embeddings", "model.layers": "transformer.encoder.layers",
        "model.norm": "transformer.encoder.final_layernorm", "lm_head": "transformer.output_layer",
        "self_attn.o_proj": "self_attention.dense", "self_attn": "self_attention",
        "mlp.gate_up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h",
    }  # fmt: skip
    made = {
        "model_type": "chatglm", "architectures": ["ChatGLMForConditionalGeneration"],
        "padded_vocab_size": config["vocab_size"], "hidden_size": config["hidden_size"],
        "ffn_hidden_size": config["intermediate_size"], "num_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"], "kv_channels": config["head_dim"],
        "multi_query_attention": True, "multi_query_group_num": config["num_key_value_heads"], "add_qkv_bias": True,
        "add_bias_linear": False, "rmsnorm": True, "seq_length": config["max_position_embeddings"],
        "layernorm_epsilon": config["rms_norm_eps"], "rope_ratio": 1.0, "eos_token_id": tiny.END, "dtype": "float32",
    }  # fmt: skip
    return made, _fused(tensors, "self_attention.query_key_value", lambda *parts: torch.cat(parts), names)


def _minicpm(config: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """MiniCPM is Granite with other names for its factors."""
    made = _config(config, "minicpm", "MiniCPMForCausalLM", {})
    made["scale_emb"] = made.pop("embedding_multiplier")
    made["scale_depth"] = made.pop("residual_multiplier") * made["num_hidden_layers"] ** 0.5
    made["dim_model_base"] = made["hidden_size"] / made.pop("logits_scaling")
    made.pop("attention_multiplier")
    return made, tensors


GPT_OSS = {
    **EXPERTS, "num_local_experts": 8, "head_dim": 32, "sliding_window": WINDOW, "swiglu_limit": 0.5,
    "rope_parameters": {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0,
                        "truncate": False, "original_max_position_embeddings": 16},
}  # fmt: skip
MXFP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
PACKED = ("experts.gate_up_proj", "experts.down_proj")


def _mxfp4_values(name: str, values: Any) -> Any:
    """The values of experts' matrices [experts, K, N] rounded to floats of 4 bits; each 32 of K share a factor."""
    import torch

    if not name.endswith(PACKED):
        return values
    grid = torch.tensor([*(-each for each in reversed(MXFP4[1:])), *MXFP4])
    blocks = values.transpose(1, 2).reshape(values.shape[0], values.shape[2], -1, 32)
    factors = 2.0 ** torch.ceil(torch.log2(blocks.abs().amax(-1, keepdim=True) / 6))
    nearest = (blocks[..., None] / factors[..., None] - grid).abs().argmin(-1)
    return (grid[nearest] * factors).reshape(values.shape[0], values.shape[2], -1).transpose(1, 2)


def _gpt_oss_packed(config: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """gpt-oss as it is published: rows of 4-bit floats, two to a byte, and exponents."""
    import torch

    grid, found = torch.tensor(MXFP4), {}
    for name, values in tensors.items():
        if not name.endswith(PACKED):
            found[name] = values
            continue
        blocks = values.transpose(1, 2).reshape(values.shape[0], values.shape[2], -1, 32)
        exponents = torch.ceil(torch.log2(blocks.abs().amax(-1, keepdim=True) / 6))
        levels = (blocks.abs()[..., None] / 2.0 ** exponents[..., None] - grid).abs().argmin(-1) + 8 * (blocks < 0)
        found[f"{name}_blocks"] = (levels[..., ::2] + 16 * levels[..., 1::2]).to(torch.uint8)
        found[f"{name}_scales"] = (exponents.squeeze(-1) + 127).to(torch.uint8)
    return {**config, "quantization_config": {"quant_method": "mxfp4"}}, found


FP8_BLOCK = (16, 24)


def _fp8_scales(rows: int, columns: int) -> Any:
    """A power of two for each block."""
    import torch

    high, wide = -(-rows // FP8_BLOCK[0]), -(-columns // FP8_BLOCK[1])
    return 2.0 ** ((torch.arange(high)[:, None] + 2 * torch.arange(wide)) % 5 - 9.0)


def _fp8_levels(values: Any) -> Any:
    """The values [.., rows, columns] by their scales, and these for each value."""
    import torch

    rows, columns = values.shape[-2:]
    factors = _fp8_scales(rows, columns)
    for axis, size in enumerate(FP8_BLOCK):
        factors = factors.repeat_interleave(size, axis)
    factors = factors[:rows, :columns]
    return (values / factors).clamp(-440, 440).to(torch.float8_e4m3fn), factors


def _is_fp8(name: str, values: Any) -> bool:
    apart = ("embed_tokens.weight", "lm_head.weight", "mlp.gate.weight")
    return values.ndim > 1 and not name.endswith(apart)


def _fp8_values(name: str, values: Any) -> Any:
    """The values of matrices rounded to floats of 8 bits."""
    if not _is_fp8(name, values):
        return values
    if name.endswith("gate_up_proj"):  # two matrices, each with blocks of its own
        import torch

        return torch.cat([_fp8_values("", half) for half in values.chunk(2, -2)], -2)
    levels, factors = _fp8_levels(values)
    return levels.float() * factors


def _deepseek_v3_fp8(config: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """DeepSeek V3 as it is published: floats of 8 bits, with a scale for each block."""
    found = {}
    for name, values in tensors.items():
        found[name] = values
        if _is_fp8(name, values):
            found[name] = _fp8_levels(values)[0]
            found[f"{name}_scale_inv"] = _fp8_scales(*values.shape)
    said = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [*FP8_BLOCK]}
    return {**config, "quantization_config": said}, found


CASES: Mapping[str, Case] = {
    "afmoe": Case(
        "afmoe", "experts, gated attention, windows, norms before and after",
        {**EXPERTS, "num_experts": 8, "head_dim": 32, "sliding_window": WINDOW, "num_shared_experts": 1,
         "route_scale": 1.5, "mup_enabled": True, "global_attn_every_n_layers": 2},
    ),
    "aria_text": Case(
        "aria_text", "merged and transposed experts beside a shared MLP",
        {"moe_num_experts": 8, "moe_topk": 3, "moe_num_shared_experts": 2, "attention_bias": True, "mlp_bias": True},
    ),
    "axk1": Case(
        "axk1", "latent attention, experts from groups, a norm on their result",
        {**LATENTS, **EXPERTS, "n_routed_experts": 8, "n_group": 4, "topk_group": 2, "num_hidden_layers": 3},
    ),
    "cohere2_moe": Case(
        "cohere2_moe", "experts beside attention, sigmoids, shared ones, a dense layer",
        {**EXPERTS, "num_experts": 8, "head_dim": 32, "sliding_window": WINDOW, "num_shared_experts": 2,
         "expert_selection_fn": "sigmoid", "first_k_dense_replace": 1, "prefix_dense_intermediate_size": 48},
    ),
    "cohere2_moe, softmax": Case(
        "cohere2_moe", "weights of the chosen logits, RMS norms",
        {**EXPERTS, "num_experts": 8, "head_dim": 32, "sliding_window": WINDOW, "rms_norm_eps": 1e-5},
    ),
    "diffllama": Case(
        "diffllama", "the difference of two halves of the heads, biases",
        {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16, "attention_bias": True},
    ),
    "doge": Case(
        "doge", "a bias of each key, norms of query and key, factors on the residual, a window",
        {"head_dim": 16, "sliding_window": WINDOW, "attention_bias": True, "mlp_bias": True},
    ),
    "dots1": Case(
        "dots1", "experts in groups, a dense layer, a shared one",
        {**EXPERTS, "n_routed_experts": 8, "n_group": 4, "topk_group": 2, "n_shared_experts": 1, "norm_topk_prob": True,
         "first_k_dense_replace": 1, "routed_scaling_factor": 1.5, "max_window_layers": 3, "sliding_window": WINDOW},
    ),
    "ernie4_5_moe": Case(
        "ernie4_5_moe", "experts on some layers, chosen with a bias",
        {"moe_num_experts": 8, "moe_k": 3, "moe_intermediate_size": 48, "moe_num_shared_experts": 1, "use_bias": True,
         "moe_layer_start_index": 1, "moe_layer_end_index": 3},
    ),
    "exaone_moe": Case(
        "exaone_moe", "experts, windows, layers without rotation",
        {**EXPERTS, "num_experts": 8, "num_shared_experts": 1, "sliding_window": WINDOW, "sliding_window_pattern": 2,
         "first_k_dense_replace": 1},
    ),
    "glm4_moe": Case(
        "glm4_moe", "experts after a dense layer, half of a head rotated",
        {**EXPERTS, "n_routed_experts": 8, "n_shared_experts": 1, "head_dim": 32, "use_qk_norm": True,
         "attention_bias": True, "routed_scaling_factor": 1.5},
    ),
    "hunyuan_v1_moe": Case(
        "hunyuan_v1_moe", "experts and a shared one, norms after the rotation",
        {"num_experts": 8, "moe_topk": 3, "head_dim": 32},
    ),
    "hy_v3": Case(
        "hy_v3", "experts after a dense layer", {**EXPERTS, "num_experts": 8, "num_shared_experts": 1, "head_dim": 32}
    ),
    "kolibri1": Case(
        "kolibri1", "experts chosen by logits, norms before and after",
        {**EXPERTS, "num_experts": 8, "head_dim": 32, "sliding_window": WINDOW, "shared_expert_intermediate_size": 32},
    ),
    "laguna": Case(
        "laguna", "heads by layer, gates by head, capped routers",
        {**EXPERTS, "num_experts": 8, "head_dim": 32, "sliding_window": WINDOW, "layer_types": TWO_TYPES,
         "shared_expert_intermediate_size": 32, "num_attention_heads_per_layer": [4, 2, 4, 2, 6],
         "moe_router_logit_softcapping": 2.0, "moe_routed_scaling_factor": 1.5},
    ),
    "laguna, gates by element": Case(
        "laguna", "gates by element", {**EXPERTS, "num_experts": 8, "head_dim": 32, "gating": "per-element"}
    ),
    "mellum": Case(
        "mellum", "experts, windows, two rotary bases",
        {**EXPERTS, "num_experts": 8, "head_dim": 32, "sliding_window": WINDOW, "layer_types": TWO_TYPES,
         "mlp_layer_types": ["dense", *["sparse"] * 4]},
    ),
    "mimo_v2_flash": Case(
        "mimo_v2_flash", "values smaller than keys, sinks, windows, heads by kind of layer, experts, a third rotated",
        {**EXPERTS, "num_key_value_heads": 1, "n_routed_experts": 8, "head_dim": 48, "v_head_dim": 20,
         "sliding_window": WINDOW, "layer_types": TWO_TYPES, "attention_bias": True, "routed_scaling_factor": 1.5},
    ),
    "mimo_v2_flash, wide values": Case(
        "mimo_v2_flash", "values wider than keys, all of a head rotated, groups of experts",
        {**EXPERTS, "n_routed_experts": 8, "n_group": 4, "topk_group": 2, "head_dim": 16, "v_head_dim": 24,
         "sliding_window": WINDOW, "attention_value_scale": None, "mlp_layer_types": ["sparse", *["dense"] * 4],
         "rope_parameters": {kind: {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": 1.0}
                             for kind, theta in (("full_attention", 1000.0), ("sliding_attention", 100.0))}},
    ),
    "minimax_m2": Case(
        "minimax_m2", "experts chosen by sigmoids, half of a head rotated",
        {**EXPERTS, "num_local_experts": 8, "head_dim": 32, "rotary_dim": 16},
    ),
    "phimoe": Case(
        "phimoe", "two experts one after the other, LayerNorms, biases",
        {"num_local_experts": 8, "num_experts_per_tok": 2, "attention_bias": True, "lm_head_bias": True,
         "router_jitter_noise": 0.2},
    ),
    "solar_open": Case(
        "solar_open", "experts and a shared one",
        {**EXPERTS, "n_routed_experts": 8, "n_shared_experts": 1, "head_dim": 32, "norm_topk_prob": False},
    ),
    "apertus": Case("apertus", "xIELU, norms of query and key"),
    "arcee": Case("arcee", "an MLP without a gate", {"head_dim": 32}),
    "baichuan": Case("llama", "one matrix for query, key and value", {"num_key_value_heads": 4}, told_as=_baichuan),
    "bamba": Case(
        "bamba", "Mamba-2, attention on two layers", {**MAMBA, "attn_layer_indices": [1, 4], "mamba_proj_bias": True}
    ),
    "bailing_hybrid": Case(
        "bailing_hybrid", "linear attention with a bounded decay by channel, gated latent attention, experts",
        {**LATENTS, **EXPERTS, "head_dim": 16, "num_experts": 8, "num_experts_per_token": 3, "n_group": 4,
         "topk_group": 2, "layer_group_size": 2, "first_k_dense_replace": 1, "num_hidden_layers": 3,
         "pad_token_id": 2},
    ),
    "bailing_hybrid, no bound": Case(
        "bailing_hybrid", "a decay without a bound, an MLP on all layers",
        {**LATENTS, "head_dim": 16, "kda_safe_gate": False, "first_k_dense_replace": 3, "num_hidden_layers": 3,
         "pad_token_id": 2, "layer_types": ["full_attention", "linear_attention", "linear_attention"]},
    ),
    "biogpt": Case("biogpt", "learned positions from row 2, a factor on the embedding"),
    "bitnet": Case("bitnet", "norms before the last products"),
    "bloom": Case(
        "bloom", "ALiBi, a norm of the embedding, fused by head",
        {"vocab_size": tiny.VOCABULARY, "hidden_size": 96, "n_layer": 4, "n_head": 6, "bos_token_id": tiny.BOS,
         "eos_token_id": tiny.END}, {},
    ),
    "chatglm": Case("glm", "one matrix for query, key and value", {"head_dim": 32}, told_as=_chatglm),
    "codegen": _gpt("codegen", "fused in four groups, part of a head rotated", rotary_dim=8),
    "cohere": Case("cohere", "side by side, norms of each head's query and key", {"use_qk_norm": True}),
    "cohere2": Case("cohere2", "windows, layers without rotation", {"head_dim": 32, "sliding_window": WINDOW}),
    "cohere_compass_text": Case(
        "cohere_compass_text", "halves rotated, windows, full layers without rotation",
        {"head_dim": 32, "sliding_window": WINDOW, "layer_types": TWO_TYPES, "logit_scale": 0.3,
         "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                             "full_attention": None}},
    ),
    "ctrl": _gpt("ctrl", "sinusoids of positions, a head with a bias", dff=96),
    "cwm": Case(
        "cwm", "windows, Llama 3's rotation", {"head_dim": 32, "sliding_window": WINDOW, "rope_parameters": LLAMA3}
    ),
    "dbrx": Case(
        "dbrx", "experts one below the other, limited query, key and value",
        {"vocab_size": tiny.VOCABULARY, "d_model": 64, "n_heads": 4, "n_layers": 4, "max_seq_len": 256,
         "attn_config": {"kv_n_heads": 2, "clip_qkv": 0.5, "rope_theta": 1000.0},
         "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 8, "moe_top_k": 3},
         "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}, "bos_token_id": tiny.BOS,
         "eos_token_id": tiny.END}, {},
    ),
    "dbrx, weights that do not sum to one": Case(
        "dbrx", "weights that do not sum to one, one key for all heads",
        {"vocab_size": tiny.VOCABULARY, "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 256,
         "attn_config": {"rope_theta": 500000.0, "clip_qkv": 8.0},
         "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 8, "moe_top_k": 2,
                        "moe_normalize_expert_weights": None},
         "bos_token_id": tiny.BOS, "eos_token_id": tiny.END}, {},
    ),
    "deepseek_v2": Case(
        "deepseek_v2", "latent attention without a query's latent, YaRN with factors, experts chosen greedily",
        {**LATENTS, **EXPERTS, "q_lora_rank": None, "n_routed_experts": 8, "first_k_dense_replace": 1,
         "routed_scaling_factor": 1.5, "rope_parameters": MLA_YARN, "num_hidden_layers": 3},
    ),
    "deepseek_v2, groups": Case(
        "deepseek_v2", "experts from the best groups, biases",
        {**LATENTS, **EXPERTS, "n_routed_experts": 8, "topk_method": "group_limited_greedy", "n_group": 4,
         "topk_group": 2, "routed_scaling_factor": 2.0, "attention_bias": True, "num_hidden_layers": 3},
    ),
    "deepseek_v3": Case(
        "deepseek_v3", "latent attention, YaRN with factors, experts from groups chosen by sigmoids and a bias",
        {**LATENTS, **EXPERTS, "n_routed_experts": 8, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1,
         "rope_parameters": MLA_YARN, "num_hidden_layers": 3},
    ),
    "deepseek_v3, halves": Case(
        "deepseek_v3", "halves rotated, values wider than keys, weights that do not sum to one, biases",
        {**LATENTS, **EXPERTS, "q_lora_rank": None, "n_routed_experts": 8, "n_group": 1, "topk_group": 1,
         "first_k_dense_replace": 1, "rope_interleave": False, "norm_topk_prob": False, "n_shared_experts": 2,
         "v_head_dim": 48, "attention_bias": True, "qk_rope_head_dim": 12, "num_hidden_layers": 3},
    ),
    "deepseek_v3, FP8": Case(
        "deepseek_v3", "floats of 8 bits with a scale for each block",
        {**LATENTS, **EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
         "num_hidden_layers": 2},
        told_as=_deepseek_v3_fp8, rounded=_fp8_values,
    ),
    "emu3_text_model": Case("emu3_text_model", "a larger rotary base", {"pad_token_id": 2}),
    "ernie4_5": Case("ernie4_5", "neighbours rotated, biases", {"head_dim": 32, "use_bias": True}),
    "exaone": Case("llama", "names of its own", {"head_dim": 32}, told_as=_exaone),
    "exaone4": Case(
        "exaone4", "norms on results, windows, layers without rotation",
        {"sliding_window": WINDOW, "num_hidden_layers": 6},
    ),
    "exaone4, no windows": Case(
        "exaone4", "all layers rotate",
        {"sliding_window": None, "sliding_window_pattern": None, "layer_types": ["full_attention"] * 5},
    ),
    "flint": Case(
        "flint", "sinks, windows, full layers without rotation, experts chosen by sigmoids, a shared one",
        {**EXPERTS, "num_experts": 8, "head_dim": 32, "sliding_window": WINDOW, "num_hidden_layers": 6,
         "shared_expert_intermediate_size": 40, "attention_bias": True},
    ),
    "falcon": Case("falcon", "one key for all heads, side by side"),
    "falcon, groups": Case("falcon", "keys by group, two norms", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon, groups, one norm": Case(
        "falcon", "keys by group, one norm",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ),
    "falcon, in series": Case("falcon", "biases", {"multi_query": False, "parallel_attn": False, "bias": True}),
    "falcon, alibi": Case(
        "falcon", "ALiBi in bfloat16", {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}
    ),
    "falcon_h1": Case(
        "falcon_h1", "attention beside Mamba-2, factors",
        {**MAMBA, "head_dim": 32, "mamba_d_ssm": 96, "mamba_n_heads": 6, "mamba_n_groups": 2, **FALCON_H1_FACTORS},
    ),
    "falcon_mamba": Case(
        "falcon_mamba", "a decay for each element, norms inside the mixer, an untied head",
        {"vocab_size": tiny.VOCABULARY, "hidden_size": 64, "num_hidden_layers": 3, "conv_kernel": 3,
         "mixer_rms_eps": 1e-4, "use_conv_bias": False, "tie_word_embeddings": False, "bos_token_id": tiny.BOS,
         "eos_token_id": tiny.END, "pad_token_id": 2}, {},
    ),
    "falcon_h1, norm before the gate": Case(
        "falcon_h1", "a norm in Mamba-2, limits of the time step",
        {**MAMBA, "mamba_d_ssm": 128, "mamba_rms_norm": True, "projectors_bias": True, "num_hidden_layers": 3},
    ),
    "falcon_h1, norm behind the gate": Case(
        "falcon_h1", "a norm in Mamba-2 behind its gate",
        {**MAMBA, "mamba_d_ssm": 128, "mamba_rms_norm": True, "mamba_norm_before_gate": False, "num_hidden_layers": 2},
    ),
    "gemma": Case("gemma", "norms plus one, scaled embedding", {"head_dim": 32}),
    "gemma2": Case(
        "gemma2", "softcaps, windows, norms before and after",
        {"head_dim": 32, "sliding_window": WINDOW, "query_pre_attn_scalar": 48, "attn_logit_softcapping": 2.0,
         "final_logit_softcapping": 3.0},
    ),
    "gemma3_text": Case(
        "gemma3_text", "two rotary bases, windows", {"head_dim": 32, "sliding_window": WINDOW, "num_hidden_layers": 7}
    ),
    "gemma3n_text": Case(
        "gemma3n_text", "four streams, Laurel, inputs of each layer, sparse gates, keys and values of earlier layers",
        {**GEMMA3N, "num_kv_shared_layers": 3, "activation_sparsity_pattern": [0.9, 0.9, 0.0, 0.0, 0.6, 0.0, 0.0],
         "intermediate_size": [96, 96, 96, 96, 80, 96, 96],
         "layer_types": ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"] * 2 + ["full_attention"]},
    ),
    "gemma3n_text, another stream": Case(
        "gemma3n_text", "three streams of which the layers compute the second, without its factor",
        {**GEMMA3N, "num_kv_shared_layers": 0, "altup_num_inputs": 3, "altup_active_idx": 1, "num_hidden_layers": 6,
         "altup_correct_scale": False, "tie_word_embeddings": True, "vocab_size_per_layer_input": tiny.VOCABULARY},
    ),
    "gemma4_text": Case(
        "gemma4_text", "heads by kind of layer, keys as values, a norm of the value, a factor on each layer",
        {**GEMMA4, "hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 1},
    ),
    "gemma4_text, small": Case(
        "gemma4_text", "inputs of each layer, keys and values of earlier layers, a wider MLP",
        {**GEMMA4, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": tiny.VOCABULARY,
         "num_kv_shared_layers": 3, "use_double_wide_mlp": True,
         "layer_types": ["sliding_attention", "full_attention"] * 2 + ["sliding_attention", "sliding_attention",
                                                                       "full_attention"]},
    ),
    "gemma4_text, experts": Case(
        "gemma4_text", "experts with a tanh GELU beside the MLP, a norm and factors of the router",
        {**GEMMA4, "hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 8, "top_k_experts": 3,
         "moe_intermediate_size": 32},
    ),
    "gemma4_unified_text": Case("gemma4_unified_text", "head sizes by kind of layer", GEMMA4),
    "glm": Case("glm", "neighbours of half a head rotated, fused gate and up", {"head_dim": 32}),
    "glm4_moe_lite": Case(
        "glm4_moe_lite", "latent attention, experts chosen by sigmoids, a shared one",
        {**LATENTS, **EXPERTS, "n_routed_experts": 8, "v_head_dim": 40, "num_hidden_layers": 3},
    ),
    "glm4": Case("glm4", "norms before and after", {"head_dim": 32}),
    "gpt2": _gpt("gpt2", "learned positions, transposed matrices"),
    "gpt2, by depth": _gpt("gpt2", "scale by depth", scale_attn_by_inverse_layer_idx=True),
    "gpt_bigcode": _gpt("gpt_bigcode", "one key for all heads"),
    "gpt_bigcode, all heads": _gpt("gpt_bigcode", "fused by head", multi_query=False),
    "gpt-sw3": Case(
        "gpt2", "learned positions, transposed matrices", {}, GPT_SIZES,
        told_as=lambda config, tensors: (_config(config, "gpt-sw3", "GPT2LMHeadModel", {}), tensors),
    ),
    "gpt_neo": Case(
        "gpt_neo", "learned positions, attention without a scale, windows",
        {"num_layers": 5, "num_heads": 4, "window_size": WINDOW,
         "attention_types": [[["global", "local"], 2], [["local"], 1]]},
    ),
    "gpt_neox": Case("gpt_neox", "fused by head, two norms side by side", {"num_attention_heads": 2}),
    "gpt_neox, 20 of 80 rotated": Case(
        "gpt_neox", "a rotation that no operator has inside", {"num_attention_heads": 2, "hidden_size": 160}
    ),
    "gpt_neox, in series": Case("gpt_neox", "one after the other", {"use_parallel_residual": False}),
    "gpt_neox_japanese": Case(
        "gpt_neox_japanese", "one bias, half of a head rotated, tied",
        {"num_attention_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0,
                                                       "partial_rotary_factor": 0.5}},
    ),
    "gptj": _gpt("gptj", "neighbours of part of a head rotated", rotary_dim=8),
    "granite": Case(
        "granite", "factors, tied",
        {"embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.4, "attention_multiplier": 0.2,
         "tie_word_embeddings": True},
    ),
    "granite_swa": Case(
        "granite_swa", "sinks, windows, a rotary base by layer",
        {"sliding_window": WINDOW, "layer_rope_theta": [0, 100.0, 100.0, 1000.0, 0], "attention_multiplier": 0.2},
    ),
    "granitemoehybrid": Case(
        "granitemoehybrid", "Mamba-2, attention without rotation, factors, no experts",
        {**MAMBA, "shared_intermediate_size": 80, "num_local_experts": 0, "residual_multiplier": 0.4,
         "layer_types": ["mamba", "mamba", "attention", "mamba", "mamba"], "attention_multiplier": 0.2,
         "embedding_multiplier": 3.0, "logits_scaling": 2.0, "tie_word_embeddings": True},
    ),
    "granitemoehybrid, attention only": Case(
        "granitemoehybrid", "no Mamba-2, rotation",
        {"shared_intermediate_size": 80, "num_local_experts": 0, "position_embedding_type": "rope",
         "layer_types": ["attention"] * 5, "attention_multiplier": 0.2},
    ),
    "granitemoehybrid, experts": Case(
        "granitemoehybrid", "experts beside the MLP",
        {**MAMBA, "shared_intermediate_size": 80, "num_local_experts": 4, "num_experts_per_tok": 2,
         "intermediate_size": 48, "num_hidden_layers": 3, "layer_types": ["mamba", "attention", "mamba"]},
    ),
    "helium": Case("helium", "neighbours rotated", {"head_dim": 16}),
    "hunyuan_v1_dense": Case("hunyuan_v1_dense", "norms after the rotation", {"head_dim": 32}),
    "hunyuan_v1_dense, alpha": Case(
        "hunyuan_v1_dense", "a larger base",
        {"head_dim": 32, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1000.0, "alpha": 50.0, "factor": 1.0,
                                             "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}},
    ),
    "hyperclovax": Case(
        "hyperclovax", "norms on results, factors",
        {"head_dim": 32, "residual_multiplier": 0.5, "embedding_multiplier": 2.0, "logits_scaling": 0.3},
    ),
    "internlm2": Case("llama", "fused by group", {"head_dim": 32}, told_as=_internlm2),
    "internlm3": Case("internlm3", "a head size of its own", {"head_dim": 32}),
    "iquestcoder": Case("iquestcoder", "a head size of its own", {"head_dim": 32}),
    "jais2": Case("jais2", "LayerNorms, squared ReLU", {"head_dim": 32}),
    "jamba": Case(
        "jamba", "a decay for each element, attention without rotation, experts on some layers",
        {"num_hidden_layers": 5, "attn_layer_period": 3, "attn_layer_offset": 1, "num_experts": 4,
         "num_experts_per_tok": 2, "mamba_d_state": 24, "mamba_dt_rank": 12, "mamba_proj_bias": True,
         "pad_token_id": 2},
    ),
    "jamba, no experts": Case(
        "jamba", "an MLP on all layers", {"num_hidden_layers": 3, "attn_layer_period": 2, "attn_layer_offset": 0,
                                          "num_experts": 1, "tie_word_embeddings": True, "pad_token_id": 2},
    ),
    "jetmoe": Case(
        "jetmoe", "experts in attention and MLP, biases on their results, tied",
        {"vocab_size": tiny.VOCABULARY, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 4,
         "num_key_value_heads": 2, "kv_channels": 24, "num_local_experts": 6, "num_experts_per_tok": 3,
         "max_position_embeddings": 256, "rms_norm_eps": 1e-2, "bos_token_id": tiny.BOS, "eos_token_id": tiny.END}, {},
    ),
    "kimi_k2": Case(
        "deepseek_v3", "latent attention, experts chosen by sigmoids and a bias",
        {**LATENTS, **EXPERTS, "n_routed_experts": 8, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
         "num_hidden_layers": 3},
        told_as=lambda config, tensors: (_config(config, "kimi_k2", "DeepseekV3ForCausalLM", {}), tensors),
    ),
    "kimi_linear": Case(
        "kimi_linear", "linear attention with a decay by channel, latent attention without rotation, experts",
        {**LATENTS, **EXPERTS, "num_experts_per_token": 3, "num_experts": 8, "q_lora_rank": None,
         "linear_num_heads": 3, "linear_head_dim": 32, "num_hidden_layers": 4, "pad_token_id": 2,
         "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"]},
    ),
    "lfm2": Case(
        "lfm2", "short convolutions, attention on some layers",
        {"layer_types": ["conv", "conv", "full_attention", "conv", "full_attention"], "block_multiple_of": 32},
    ),
    "lfm2, ends with a convolution": Case(
        "lfm2", "a bias, an untied head",
        {"full_attn_idxs": [1, 2], "conv_bias": True, "conv_L_cache": 4, "block_auto_adjust_ff_dim": False,
         "tie_word_embeddings": False},
    ),
    "lfm2_moe": Case(
        "lfm2_moe", "experts chosen by sigmoids and a bias",
        {**EXPERTS, "num_experts": 8, "num_dense_layers": 1, "routed_scaling_factor": 1.5, "num_hidden_layers": 4,
         "layer_types": ["conv", "full_attention", "conv", "conv"]},
    ),
    "lfm3": Case(
        "lfm3", "short convolutions, windows, a gate for each head, part of the pairs rotated",
        {"head_dim": 32, "sliding_window": WINDOW, "num_hidden_layers": 8},
    ),
    "lfm3, plain": Case(
        "lfm3", "no gate, norms before only",
        {"use_attention_gate": False, "use_sandwich_norm": False, "tie_word_embeddings": False, "head_dim": 16,
         "layer_types": ["full_attention", "conv", "sliding_attention", "conv", "conv"], "conv_bias": True},
    ),
    "llama4_text": Case(
        "llama4_text", "experts that read weighted inputs, a shared one, dense layers, chunks, layers without rotation",
        {**LLAMA4, "interleave_moe_layer_step": 2, "num_hidden_layers": 6},
    ),
    "llama4_text, two experts": Case(
        "llama4_text", "two experts a token, no norms of query and key, biases, Llama 3's rotation",
        {**LLAMA4, "num_experts_per_tok": 2, "use_qk_norm": False, "attention_bias": True, "no_rope_layers": [1, 0, 1],
         "num_hidden_layers": 3, "attention_chunk_size": 256, "attn_temperature_tuning": False,
         "rope_parameters": {**LLAMA3, "high_freq_factor": 1.0}},
    ),
    "llama": Case("llama", "biases, tied", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "mamba": Case(
        "mamba", "a decay for each element, biases",
        {"vocab_size": tiny.VOCABULARY, "hidden_size": 64, "num_hidden_layers": 4, "state_size": 24,
         "time_step_rank": 10, "bos_token_id": tiny.BOS, "eos_token_id": tiny.END, "pad_token_id": 2,
         "use_bias": True}, {},
    ),
    "mamba2": Case(
        "mamba2", "no attention, no MLP",
        {"vocab_size": tiny.VOCABULARY, "hidden_size": 64, "num_hidden_layers": 4, "num_heads": 8, "head_dim": 16,
         "n_groups": 2, "state_size": 24, "bos_token_id": tiny.BOS, "eos_token_id": tiny.END, "pad_token_id": 2,
         "time_step_limit": [0.0, 9.0], "use_bias": True}, {},
    ),
    "longcat_flash": Case(
        "longcat_flash", "two latent attentions and MLPs a layer, experts beside them of which some compute nothing",
        {**{key: value for key, value in SIZES.items() if key not in ("num_hidden_layers", "intermediate_size")},
         **LATENTS, "num_layers": 2, "ffn_hidden_size": 96, "expert_ffn_hidden_size": 48, "n_routed_experts": 6,
         "zero_expert_num": 5, "moe_topk": 4, "head_dim": 16, "attention_bias": True, "routed_scaling_factor": 1.5}, {},
    ),
    "minimax": Case(
        "minimax", "lightning attention, attention on one layer, factors on the residual, experts",
        {"num_local_experts": 5, "num_experts_per_tok": 2, "head_dim": 24, "num_hidden_layers": 4,
         "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
         "rms_norm_eps": 1e-3, "full_attn_alpha_factor": 1.7, "full_attn_beta_factor": 0.6, "mlp_alpha_factor": 3.5,
         "linear_attn_alpha_factor": 2.5, "linear_attn_beta_factor": 0.8, "mlp_beta_factor": 1.2},
    ),
    "minimax, alike": Case(
        "minimax", "a window, tied, no factors",
        {"num_local_experts": 4, "num_hidden_layers": 3, "sliding_window": WINDOW, "tie_word_embeddings": True},
    ),
    "minicpm": Case(
        "granite", "factors",
        {"embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.4, "attention_multiplier": 0.25},
        told_as=_minicpm,
    ),
    "minicpm3": Case(
        "minicpm3", "latent attention, halves rotated, LongRoPE, factors",
        {**LATENTS, "scale_emb": 3.0, "scale_depth": 0.9, "dim_model_base": 32, "rope_parameters": LONGROPE,
         "original_max_position_embeddings": 24, "num_hidden_layers": 3},
    ),
    "minicpm3, plain": Case(
        "minicpm3", "no factors, no query's latent, an untied head",
        {**LATENTS, "q_lora_rank": None, "scale_depth": None, "dim_model_base": None, "v_head_dim": None,
         "tie_word_embeddings": False, "num_hidden_layers": 2},
    ),
    "ministral": Case(
        "ministral", "windows by layer", {"head_dim": 32, "sliding_window": WINDOW, "layer_types": TWO_TYPES}
    ),
    "ministral3": Case("ministral3", "queries that grow, YaRN", {"head_dim": 32, "rope_parameters": MINISTRAL3}),
    "mistral": Case("mistral", "a window on all layers", {"sliding_window": WINDOW, "head_dim": 32}),
    "mistral4": Case(
        "mistral4", "latent attention with queries that grow, YaRN, experts, a dense layer",
        {**LATENTS, **EXPERTS, "n_routed_experts": 8, "first_k_dense_replace": 1, "num_hidden_layers": 3,
         "pad_token_id": 2, "rope_parameters": {**MINISTRAL3, "partial_rotary_factor": 0.4}},
    ),
    "mixtral": Case("mixtral", "experts", {**EXPERTS, "num_local_experts": 8, "head_dim": 32}),
    "mllama_text_model": Case(
        "mllama_text_model", "layers for images left out, rows of the embedding for images, Llama 3's rotation",
        {"cross_attention_layers": [1, 3], "rope_parameters": LLAMA3, "pad_token_id": 2},
    ),
    "mpt": Case(
        "mpt", "ALiBi, no biases, a limit on query, key and value",
        {"vocab_size": tiny.VOCABULARY, "d_model": 96, "n_layers": 4, "n_heads": 6, "max_seq_len": 256,
         "attn_config": {"clip_qkv": 0.3}, "bos_token_id": tiny.BOS, "eos_token_id": tiny.END}, {},
    ),
    "muse_glimmer_text": Case(
        "muse_glimmer_text", "norms before and after, gated attention, windows, full layers without rotation",
        {"head_dim": 32, "sliding_window": WINDOW, "final_logit_softcapping": 2.0, "output_multiplier": 0.4,
         "post_norm_eps": 1e-3, "qk_scale_factor": 1.7},
    ),
    "flex_olmo": Case("flex_olmo", "experts, norms on results", {**EXPERTS, "num_experts": 5}),
    "gpt_oss": Case("gpt_oss", "experts with biases and limits, sinks, windows, YaRN", GPT_OSS),
    "gpt_oss, packed": Case(
        "gpt_oss", "experts of 4 bits (MXFP4)", GPT_OSS, told_as=_gpt_oss_packed, rounded=_mxfp4_values
    ),
    "granitemoe": Case(
        "granitemoe", "merged experts, factors",
        {**EXPERTS, "num_local_experts": 8, "embedding_multiplier": 3.0, "logits_scaling": 2.0,
         "residual_multiplier": 0.4, "attention_multiplier": 0.2},
    ),
    "granitemoe_swa": Case(
        "granitemoe_swa", "merged experts and a shared one, sinks, windows, a rotary base by layer",
        {**EXPERTS, "num_local_experts": 8, "shared_intermediate_size": 48, "sliding_window": WINDOW,
         "layer_rope_theta": [0, 100.0, 100.0, 1000.0, 0], "attention_multiplier": 0.2, "embedding_multiplier": 3.0},
    ),
    "granitemoeshared": Case(
        "granitemoeshared", "merged experts and a shared one, tied",
        {**EXPERTS, "num_local_experts": 8, "shared_intermediate_size": 48, "residual_multiplier": 0.4,
         "attention_multiplier": 0.2, "tie_word_embeddings": True},
    ),
    "olmoe": Case("olmoe", "experts, limited query, key and value", {**EXPERTS, "num_experts": 8, "clip_qkv": 0.5}),
    "modernbert-decoder": Case(
        "modernbert-decoder", "a norm of the embedding, windows, two rotary bases, a layer before the head",
        {"local_attention": 2 * WINDOW, "pad_token_id": 2, "norm_bias": True, "classifier_bias": True,
         "mlp_bias": True},
    ),
    "modernbert-decoder, untied": Case(
        "modernbert-decoder", "no biases, an untied head",
        {"local_attention": 2 * WINDOW, "pad_token_id": 2, "decoder_bias": False, "tie_word_embeddings": False,
         "num_hidden_layers": 3, "attention_bias": True,
         "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    ),
    "nanochat": Case("nanochat", "norms without weights, rotates the other way"),
    "nemotron": Case("nemotron", "norms plus one, half of a head rotated", {"head_dim": 32, "attention_bias": True}),
    "nemotron_h": Case(
        "nemotron_h", "one sublayer a layer, attention without rotation",
        {"head_dim": 32, "mamba_num_heads": 6, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 24,
         "layers_block_type": ["mamba", "mlp", "attention", "mlp", "mamba", "mlp"], "time_step_min": 1e-9},
    ),
    "nemotron_h, experts": Case(
        "nemotron_h", "experts without a gate, with a squared ReLU",
        {**EXPERTS, "n_routed_experts": 8, "head_dim": 32, "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 1,
         "ssm_state_size": 16, "layers_block_type": ["mamba", "moe", "attention", "moe"], "time_step_min": 1e-9,
         "moe_shared_expert_intermediate_size": 64, "routed_scaling_factor": 1.5},
    ),
    "nemotron_h, smaller experts": Case(
        "nemotron_h", "experts with a hidden size of their own",
        {**EXPERTS, "n_routed_experts": 8, "head_dim": 32, "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 1,
         "ssm_state_size": 16, "layers_block_type": ["mamba", "moe", "attention"], "time_step_min": 1e-9,
         "moe_shared_expert_intermediate_size": 64, "moe_latent_size": 32, "norm_topk_prob": False},
    ),
    "nemotron_h, ends with Mamba-2": Case(
        "nemotron_h", "biases",
        {"mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 1, "ssm_state_size": 16, "use_bias": True,
         "mlp_bias": True, "layers_block_type": ["attention", "mlp", "mamba"], "time_step_min": 1e-9},
    ),
    "olmo": Case("olmo", "norms without weights, limited query, key and value", {"clip_qkv": 0.3}),
    "olmo2": Case("olmo2", "norms on results, and over all of query and key"),
    "olmo3": Case("olmo3", "windows, two rotary embeddings", {"sliding_window": WINDOW}),
    "olmo_hybrid": Case(
        "olmo_hybrid", "linear attention whose rate is doubled, attention without rotation",
        {"linear_key_head_dim": 16, "linear_value_head_dim": 24, "linear_num_key_heads": 2,
         "linear_num_value_heads": 4, "rope_parameters": {"rope_type": "default", "rope_theta": None}},
    ),
    "olmo_hybrid, rotation": Case(
        "olmo_hybrid", "linear attention with a plain rate, rotation",
        {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_allow_neg_eigval": False,
         "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention",
                         "linear_attention"]},
    ),
    "openai-gpt": _gpt("openai-gpt", "norms behind each sum with the residual"),
    "opt": Case("opt", "learned positions from row 2", {"ffn_dim": 96, "activation_function": "relu"}),
    "opt, no biases": Case(
        "opt", "norms without weights, a head of its own",
        {"ffn_dim": 96, "activation_function": "gelu", "enable_bias": False, "layer_norm_elementwise_affine": False,
         "tie_word_embeddings": False},
    ),
    "opt, narrow ends": Case(
        "opt", "norms behind each sum with the residual, a narrower embedding",
        {"ffn_dim": 96, "do_layer_norm_before": False, "word_embed_proj_dim": 48},
    ),
    "persimmon": Case("persimmon", "fused by head, norms of query and key"),
    "phi": Case("phi", "side by side, biases, a head with a bias"),
    "phi, norms": Case(
        "phi", "norms of query and key", {"qk_layernorm": True, "num_attention_heads": 2, "num_key_value_heads": 1}
    ),
    "phi3": Case("phi3", "fused matrices, a window", {"sliding_window": WINDOW}),
    "phi3, partial": Case(
        "phi3", "half of a head rotated, tied",
        {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5}},
    ),
    "phi3, longrope": Case(
        "phi3", "LongRoPE, beyond its border", {"original_max_position_embeddings": 24, "rope_parameters": LONGROPE}
    ),
    "qwen2": Case(
        "qwen2", "biases, windows on the upper layers",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    ),
    "qwen3": Case("qwen3", "norms of query and key, tied", {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen2_moe": Case(
        "qwen2_moe", "experts on some layers, a shared one, windows",
        {**EXPERTS, "num_experts": 8, "shared_expert_intermediate_size": 32, "decoder_sparse_step": 2,
         "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 4},
    ),
    "qwen3_moe": Case(
        "qwen3_moe", "experts on most layers", {**EXPERTS, "num_experts": 8, "head_dim": 32, "mlp_only_layers": [1]}
    ),
    "qwen3_moe, normalised": Case(
        "qwen3_moe", "weights of sum 1", {**EXPERTS, "num_experts": 8, "norm_topk_prob": True}
    ),
    "qwen3_5_text": Case(
        "qwen3_5_text", "linear attention, gated attention, a quarter of a head rotated",
        {"head_dim": 64, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
         "linear_value_head_dim": 24, "linear_conv_kernel_dim": 4, "num_hidden_layers": 6},
    ),
    "qwen3_5_text, ends with linear attention": Case(
        "qwen3_5_text", "biases, tied, a layer pattern of its own",
        {"head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 16,
         "linear_value_head_dim": 16, "attention_bias": True, "tie_word_embeddings": True, "num_hidden_layers": 3,
         "layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    ),
    "qwen3_5_moe_text": Case(
        "qwen3_5_moe_text", "linear attention, experts and a shared one",
        {**EXPERTS, **DELTA, "head_dim": 32, "num_experts": 8, "shared_expert_intermediate_size": 48,
         "num_hidden_layers": 4},
    ),
    "qwen3_next": Case(
        "qwen3_next", "linear attention fused by key head, experts and a shared one",
        {**EXPERTS, **DELTA, "head_dim": 32, "num_experts": 8, "shared_expert_intermediate_size": 48,
         "num_hidden_layers": 5, "mlp_only_layers": [1]},
    ),
    "recurrent_gemma": Case(
        "recurrent_gemma", "gated recurrences, a window on some layers, half of a head rotated, a rounded factor",
        {"hidden_size": 96, "intermediate_size": 160, "num_key_value_heads": 1, "lru_width": 128, "conv1d_width": 3,
         "attention_window_size": WINDOW, "logits_soft_cap": 3.0, "pad_token_id": 2, "attention_bias": True,
         "num_hidden_layers": 4},
    ),
    "recurrent_gemma, ends with attention": Case(
        "recurrent_gemma", "a layer pattern of its own",
        {"block_types": ["recurrent", "attention"], "attention_window_size": WINDOW, "pad_token_id": 2,
         "num_hidden_layers": 4},
    ),
    "seed_oss": Case("seed_oss", "biases", {"head_dim": 32, "attention_out_bias": True}),
    "smollm3": Case("smollm3", "layers without rotation"),
    "smollm3, windows": Case("smollm3", "windows", {"use_sliding_window": True, "sliding_window": WINDOW}),
    "stablelm": Case(
        "stablelm", "a quarter of a head rotated",
        {"use_qkv_bias": True, "num_attention_heads": 2, "num_key_value_heads": 1},
    ),
    "stablelm, side by side": Case(
        "stablelm", "a norm for each head", {"use_parallel_residual": True, "qk_layernorm": True}
    ),
    "starcoder2": Case("starcoder2", "LayerNorms, biases, a window", {"sliding_window": WINDOW}),
    "vaultgemma": Case(
        "vaultgemma", "softcaps without norms on results",
        {"head_dim": 32, "sliding_window": WINDOW, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "xglm": Case(
        "xglm", "sinusoids of positions, biases",
        {"vocab_size": tiny.VOCABULARY, "d_model": 64, "ffn_dim": 96, "num_layers": 4, "attention_heads": 4,
         "max_position_embeddings": 256, "bos_token_id": tiny.BOS, "eos_token_id": tiny.END, "pad_token_id": 1}, {},
    ),
    "youtu": Case("youtu", "latent attention, tied", {**LATENTS, "num_hidden_layers": 3}),
    "zamba2": Case(
        "zamba2", "two shared blocks with adapters of attention, rotation, biases, Mamba-2 in groups",
        {**ZAMBA2, "use_shared_attention_adapter": True, "use_mem_rope": True, "add_bias_linear": True,
         "num_mem_blocks": 2, "mamba_ngroups": 2, "rms_norm_eps": 1e-2},
    ),
    "zamba2, one block": Case(
        "zamba2", "one shared block, attention without rotation and adapters", {**ZAMBA2, "num_key_value_heads": 2}
    ),
}  # fmt: skip
"""By name. The name begins with the family's `model_type`."""


_RECURRENT = ("bailing_hybrid", "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "kimi_linear",
              "lfm2", "lfm3", "mamba", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_next",
              "recurrent_gemma", "zamba2")  # fmt: skip
_WITHOUT_STATES = ("granitemoehybrid, attention only", "minimax_m2")
RECURRENT = tuple(name for name in CASES if name.startswith(_RECURRENT) and name not in _WITHOUT_STATES)
"""Cases with states that later padding would get into: their graphs refuse it after the first call."""


def _embedder(model_type: str, model_class: str) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """A model of embeddings whose tokens read later ones, under a name that transformers does not know."""

    def told_as(config: dict[str, Any], tensors: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        told = {**config, "model_type": model_type, "architectures": [model_class]}
        del told["is_causal"]
        held = {name.removeprefix("model."): each for name, each in tensors.items() if name != "lm_head.weight"}
        return told, held

    return told_as


EMBEDDERS = {
    "embedding_gemma2_text": Case(
        "embedding_gemma2_text", "heads by kind of layer, windows, inputs of each layer, a product behind the norm",
        {"head_dim": 16, "global_head_dim": 32, "sliding_window": 3, "num_hidden_layers": 7, "embedding_dim": 80,
         "hidden_size_per_layer_input": 24},
        headless=True,
    ),
    "eurobert": Case(
        "eurobert", "attention in both directions", {"head_dim": 32, "mask_token_id": 3}, headless=True,
    ),
    "llama_bidirec": Case(
        "llama", "attention in both directions", {"head_dim": 32, "is_causal": False},
        told_as=_embedder("llama_bidirec", "LlamaBidirectionalModel"),
    ),
    "ministral3_bidirec": Case(
        "ministral3", "attention in both directions, YaRN",
        {"head_dim": 32, "rope_parameters": MINISTRAL3, "is_causal": False},
        told_as=_embedder("ministral3_bidirec", "Ministral3BidirectionalModel"),
    ),
    "bidirectional_pplx_qwen3": Case(
        "qwen3", "attention in both directions", {"head_dim": 32, "is_causal": False},
        told_as=_embedder("bidirectional_pplx_qwen3", "PPLXQwen3Model"),
    ),
}  # fmt: skip
"""Cases of families that give embeddings only."""
EVERY_CASE = {**CASES, **EMBEDDERS}


def model_type_of(name: str) -> str:
    """The family of a case, as Drupe knows it."""
    return name.partition(",")[0]


def write_configuration(name: str, folder: Path) -> Path:
    """Write a case's config.json alone: what is composed and which operators that takes follow from it."""
    from transformers import AutoConfig

    case = EVERY_CASE[name]
    made = AutoConfig.for_model(case.family, **{**case.sizes, **case.settings})
    architecture = "Model" if case.headless else "ModelForCausalLM"
    config = {**json.loads(made.to_json_string(use_diff=True)), "architectures": [architecture]}
    told = config if case.told_as is None else case.told_as(config, {})[0]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    return folder


def make(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a case's checkpoint. Returns it, and the one that transformers opens, which is another for some."""
    case = EVERY_CASE[name]
    reference = folder / "reference"
    _save(case, reference)
    if case.told_as is None:
        return reference, reference
    from safetensors.torch import load_file, save_file

    config = json.loads((reference / "config.json").read_text(encoding="utf-8"))
    told, tensors = case.told_as(config, load_file(reference / "model.safetensors"))
    checkpoint = folder / "checkpoint"
    shutil.copytree(reference, checkpoint)
    (checkpoint / "config.json").write_text(json.dumps(told), encoding="utf-8")
    save_file({key: each.contiguous() for key, each in tensors.items()}, checkpoint / "model.safetensors")
    return checkpoint, reference


def _save(case: Case, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    torch.manual_seed(7)
    _make_known()
    settings = {**case.sizes, **case.settings}
    made_by = AutoModel if case.headless else AutoModelForCausalLM
    model = made_by.from_config(AutoConfig.for_model(case.family, **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if parameter.ndim == 1 and float(parameter.float().mean()) == 1.0 else 0.0
            spread = 0.6 if name.endswith(ROUTERS) else 0.15
            parameter.copy_(case.rounded(name, centre + torch.randn(parameter.shape) * spread))
        for name, buffer in model.named_buffers():
            if name.endswith(("correction_bias", "expert_bias")):
                buffer.copy_(torch.randn(buffer.shape) * 0.15)
            if name.endswith("layer_scalar"):
                buffer.copy_(1.0 + torch.randn(buffer.shape) * 0.15)
    model.tie_weights()
    model.float().save_pretrained(folder)
    tiny.write_tokenizer(folder)


def _make_known() -> None:
    """Make transformers' automatic class find the classes that it has for text parts of other models only."""
    from transformers import AutoModelForCausalLM
    from transformers.models.emu3 import Emu3ForCausalLM, Emu3TextConfig
    from transformers.models.mistral4 import Mistral4Config, Mistral4ForCausalLM
    from transformers.models.mllama import MllamaForCausalLM, MllamaTextConfig

    AutoModelForCausalLM.register(Emu3TextConfig, Emu3ForCausalLM, exist_ok=True)
    AutoModelForCausalLM.register(MllamaTextConfig, MllamaForCausalLM, exist_ok=True)
    AutoModelForCausalLM.register(Mistral4Config, Mistral4ForCausalLM, exist_ok=True)
    AutoModelForCausalLM.register(*_muse_glimmer(), exist_ok=True)


@functools.cache
def _muse_glimmer() -> tuple[Any, Any]:
    """The configuration of Muse Glimmer's text model, and a class with its head: transformers has one of the whole."""
    import torch
    from transformers import GenerationMixin
    from transformers.modeling_outputs import CausalLMOutputWithPast
    from transformers.models.muse_glimmer import modeling_muse_glimmer as muse

    class MuseGlimmerTextForCausalLM(muse.MuseGlimmerPreTrainedModel, GenerationMixin):
        config_class = muse.MuseGlimmerTextConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model = muse.MuseGlimmerTextModel(config)
            self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            self.post_init()

        def forward(
            self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None, past_key_values: Any = None,
            use_cache: bool = True, **ignored: Any,
        ) -> Any:  # fmt: skip
            out = self.model(
                input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=past_key_values,
                use_cache=use_cache,
            )  # fmt: skip
            limit = self.config.final_logit_softcapping
            logits = self.lm_head(out.last_hidden_state) * self.config.output_multiplier
            return CausalLMOutputWithPast(
                logits=limit * torch.tanh(logits / limit), past_key_values=out.past_key_values
            )

    return muse.MuseGlimmerTextConfig, MuseGlimmerTextForCausalLM


def _config(config: dict[str, Any], model_type: str, architecture: str, keys: Mapping[str, str]) -> dict[str, Any]:
    """A configuration of another family. keys: new names of some keys."""
    made = {keys.get(key, key): value for key, value in config.items()}
    return {**made, "model_type": model_type, "architectures": [architecture]}


def _renamed(tensors: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The tensors with parts of their names replaced, the first that fit first."""
    found = {}
    for name, tensor in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        found[name] = tensor
    return found


def _fused(
    tensors: Mapping[str, Any], called: str, fuse: Callable[..., Any], names: Mapping[str, str]
) -> dict[str, Any]:
    """The tensors with query, key and value of each layer as one, under the name `called`."""
    found = {name: each for name, each in tensors.items() if ".self_attn.q_" not in name}
    for name in tensors:
        if ".self_attn.q_proj." in name:
            layer, _, kind = name.partition(".self_attn.q_proj.")
            parts = [tensors[name], *(found.pop(f"{layer}.self_attn.{each}_proj.{kind}") for each in "kv")]
            found[f"{layer}.{called}.{kind}"] = fuse(*parts)
    return _renamed(found, names)
