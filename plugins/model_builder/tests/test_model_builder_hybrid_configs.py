"""Configurations of hybrids that contradict themselves, or want what is not computed, are refused with the key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from drupe.api import ModelError
from drupe_checkpoints import Configuration
from drupe_model_builder.finding import own_family

SIZES = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "mamba_n_heads": 8, "mamba_n_groups": 2, "num_local_experts": 0,
}  # fmt: skip
ZAMBA2 = {"layers_block_type": ["mamba", "hybrid", "mamba"]}
GEMMA3N = {"num_kv_shared_layers": 0}
KIMI = {"num_key_value_heads": 4, "num_experts": 4, "num_experts_per_token": 2}
LING = {**KIMI, "n_group": 2, "topk_group": 1}
ARIA = {"moe_num_experts": 4, "num_local_experts": None}
JETMOE = {"num_local_experts": 4}
LONGCAT = {"num_key_value_heads": 4, "n_routed_experts": 4, "moe_topk": 2, "num_local_experts": None}
MIMO = {"n_routed_experts": 4, "num_experts_per_tok": 2, "head_dim": 48, "num_local_experts": None}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("lfm2", {"layer_types": ["conv", "full_attention"]}, "layer_types wants, for each of 3 layers"),
    ("lfm2", {"layer_types": ["conv", "mamba", "conv"]}, "layer_types wants"),
    ("lfm2", {"layer_types": []}, "layer_types wants, for each of 3 layers"),
    ("gemma3_text", {"layer_types": []}, "layer_types wants, for each of 3 layers"),
    ("cohere2_moe", {"mlp_layer_types": []}, "mlp_layer_types wants, for each of 3 layers"),
    ("laguna", {"num_local_experts": 8, "num_attention_heads_per_layer": []}, "num_attention_heads_per_layer wants"),
    ("lfm2", {"full_attn_idxs": 2}, "full_attn_idxs wants a list"),
    ("lfm2", {"full_attn_idxs": [1, 3]}, "full_attn_idxs wants a list of numbers of layers below 3"),
    ("lfm3", {"layer_types": ["conv"]}, "layer_types wants"),
    ("qwen3_5_text", {"layer_types": ["full_attention"]}, "layer_types wants"),
    ("qwen3_5_text", {"linear_num_key_heads": 3, "linear_num_value_heads": 4}, "not a multiple"),
    ("olmo_hybrid", {"linear_num_key_heads": 3, "linear_num_value_heads": 4}, "not a multiple"),
    ("granitemoehybrid", {"layer_types": ["mamba", "conv", "mamba"]}, "layer_types wants"),
    ("granitemoehybrid", {"layers_block_type": ["mamba"]}, "layers_block_type wants"),
    ("granitemoehybrid", {"mamba_n_groups": 3}, "mamba_n_heads = 8 is not a multiple of mamba_n_groups = 3"),
    ("granitemoehybrid", {"hidden_act": "gelu", "layer_types": ["mamba"] * 3}, 'hidden_act = "gelu"'),
    ("bamba", {"attn_layer_indices": [7]}, "numbers of layers below 3"),
    ("falcon_h1", {"ssm_multipliers": [1.0, 2.0]}, "ssm_multipliers wants 5 numbers"),
    ("falcon_h1", {"attention_bias": True, "attention_in_multiplier": 2.0}, "multiplier = 2.0 in config"),
    ("jamba", {"attn_layer_offset": 9}, "attn_layer_offset = 9 is not a whole number from 0 to attn_layer_period - 1"),
    ("jamba", {"num_experts": 4, "expert_layer_offset": "1"}, "expert_layer_offset = 1 is not"),
    ("jamba", {"mamba_dt_rank": 0}, "mamba_dt_rank = 0"),
    ("jamba", {"num_experts": 4, "num_experts_per_tok": 5}, "num_experts_per_tok = 5 is more than num_experts = 4"),
    ("kimi_linear", {**KIMI, "layer_types": ["full_attention"]}, "layer_types wants, for each of 3 layers"),
    ("kimi_linear", {**KIMI, "linear_attn_config": {"full_attn_layers": [1], "kda_layers": [2]}}, "from 1 to 3 once"),
    ("kimi_linear", {**KIMI, "linear_attn_config": {"num_heads": 0}}, "num_heads = 0"),
    ("kimi_linear", {**KIMI, "mla_use_nope": False}, "mla_use_nope = false"),
    ("kimi_linear", {**KIMI, "moe_router_activation_func": "softmax"}, 'moe_router_activation_func = "softmax"'),
    ("bailing_hybrid", {**LING, "layer_group_size": 0}, "layer_group_size = 0"),
    ("bailing_hybrid", {**LING, "kda_lower_bound": "-5"}, "kda_lower_bound"),
    ("bailing_hybrid", {**LING, "short_conv_kernel_size": 1.5}, "short_conv_kernel_size = 1.5"),
    ("bailing_hybrid", {**LING, "num_experts": 9}, "num_experts = 9 does not make n_group = 2 groups"),
    ("longcat_flash", {**LONGCAT, "zero_expert_type": "copy"}, 'zero_expert_type = "copy"'),
    ("longcat_flash", {**LONGCAT, "zero_expert_num": -1}, "zero_expert_num = -1"),
    ("longcat_flash", {**LONGCAT, "moe_topk": 9}, "moe_topk = 9 is more than n_routed_experts = 4"),
    ("longcat_flash", {**LONGCAT, "num_layers": 0}, "num_layers = 0"),
    ("longcat_flash", {**LONGCAT, "q_lora_rank": None}, "q_lora_rank = null"),
    ("longcat_flash", {**LONGCAT, "num_key_value_heads": 2}, "num_key_value_heads = 2, but latent attention"),
    ("longcat_flash", {**LONGCAT, "norm_topk_prob": True}, "norm_topk_prob = true"),
    ("longcat_flash", {**LONGCAT, "mla_scale_q_lora": "yes"}, "mla_scale_q_lora"),
    ("mimo_v2_flash", {**MIMO, "layer_types": ["full_attention"]}, "layer_types wants, for each of 3 layers"),
    ("mimo_v2_flash", {**MIMO, "hybrid_layer_pattern": [0, 1]}, "hybrid_layer_pattern wants, for each of 3 layers"),
    ("mimo_v2_flash", {**MIMO, "moe_layer_freq": [0, 1]}, "moe_layer_freq wants, for each of 3 layers, 0 or 1"),
    ("mimo_v2_flash", {**MIMO, "mlp_layer_types": ["dense"]}, "mlp_layer_types wants, for each of 3 layers"),
    ("mimo_v2_flash", {**MIMO, "swa_num_key_value_heads": 3}, "is not a multiple of swa_num_key_value_heads = 3"),
    ("mimo_v2_flash", {**MIMO, "swa_head_dim": 64}, "swa_head_dim = 64 in config.json gives layers with a window"),
    ("mimo_v2_flash", {**MIMO, "v_head_dim": 0}, "v_head_dim = 0"),
    ("mimo_v2_flash", {**MIMO, "attention_value_scale": "x"}, "attention_value_scale"),
    ("mimo_v2_flash", {**MIMO, "rope_scaling": {"type": "yarn"}}, "rope_scaling = .* stretches the rotary embedding"),
    ("mimo_v2_flash", {**MIMO, "scoring_func": "softmax"}, 'scoring_func = "softmax"'),
    ("mimo_v2_flash", {**MIMO, "n_group": 3}, "n_routed_experts = 4 does not make n_group = 3 groups"),
    ("muse_glimmer_text", {"layer_rope_theta": [0, 5.0, 0]}, "layer_rope_theta wants, for each of 3 layers"),
    ("mamba", {"time_step_rank": 0}, "time_step_rank = 0"),
    ("mamba", {"expand": -1}, "expand = -1"),
    ("mamba", {"hidden_act": "gelu"}, 'hidden_act = "gelu"'),
    ("falcon_mamba", {"mixer_rms_eps": "1e-6"}, "mixer_rms_eps"),
    ("mamba2", {"time_step_limit": [1.0, 0.5]}, "time_step_limit wants two numbers"),
    ("mamba2", {"time_step_limit": "all"}, "time_step_limit wants two numbers"),
    ("nemotron_h", {"hybrid_override_pattern": "M-X"}, "wants for each layer one of"),
    ("nemotron_h", {"hybrid_override_pattern": "M-*-"}, "hybrid_override_pattern names 4 layers, num_hidden_layers 3"),
    ("gemma3n_text", {}, "num_kv_shared_layers = 15"),
    ("gemma3n_text", {**GEMMA3N, "intermediate_size": [96, 96]}, "intermediate_size wants, for each of 3"),
    ("gemma3n_text", {**GEMMA3N, "altup_num_inputs": 1}, "altup_num_inputs = 1 leaves no stream"),
    ("gemma3n_text", {**GEMMA3N, "altup_active_idx": 4}, "altup_active_idx = 4 is not one of 4 streams"),
    ("gemma3n_text", {**GEMMA3N, "activation_sparsity_pattern": [1.0, 0.0, 0.0]}, "for each of 3 layers"),
    ("gemma4_text", {"num_kv_shared_layers": 2, "layer_types": ["full_attention", "sliding_attention",
                                                               "full_attention"]}, "leaves no layer of the kind"),
    ("gemma4_text", {"num_kv_shared_layers": 1, "per_layer_config": {"1": {"head_dim": 64}},
                     "layer_types": ["full_attention"] * 3}, "makes layer 2 read the keys and values of layer 1, but"),
    ("gemma4_text", {"num_kv_shared_layers": 3}, "num_kv_shared_layers = 3"),
    ("gemma4_text", {"hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 4, "top_k_experts": 9,
                     "moe_intermediate_size": 16}, "top_k_experts = 9 is more than num_experts = 4"),
    ("gemma4_unified_text", {"enable_moe_block": True}, "enable_moe_block = true"),
    ("llama4_text", {"num_local_experts": 4, "no_rope_layers": [1, 0]}, "no_rope_layers wants, for each of 3 layers"),
    ("llama4_text", {"num_local_experts": 4, "moe_layers": [0, 3]}, "moe_layers wants a list of numbers of layers"),
    ("llama4_text", {"num_local_experts": 4, "layer_types": ["chunked_attention"]}, "layer_types wants, for each of 3"),
    ("llama4_text", {"num_local_experts": 4, "num_experts_per_tok": 5}, "num_experts_per_tok = 5 is more than"),
    ("llama4_text", {"num_local_experts": 4, "attention_chunk_size": 0}, "attention_chunk_size = 0"),
    ("llama4_text", {"num_local_experts": 4, "attn_temperature_tuning": "yes"}, "attn_temperature_tuning"),
    ("zamba2", {"layers_block_type": ["mamba", "hybrid"]}, "layers_block_type wants, for each of 3 layers"),
    ("zamba2", {**ZAMBA2, "n_mamba_heads": 7}, "n_mamba_heads = 7 does not divide"),
    ("zamba2", {**ZAMBA2, "mamba_ngroups": 3}, "n_mamba_heads = 8 is not a multiple of mamba_ngroups = 3"),
    ("zamba2", {**ZAMBA2, "use_shared_attention_adapter": True}, "use_shared_attention_adapter wants as many"),
    ("zamba2", {**ZAMBA2, "num_mem_blocks": 0}, "num_mem_blocks = 0"),
    ("bloom", {"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm = true"),
    ("aria_text", {**ARIA, "moe_topk": 9}, "moe_topk = 9 is more than moe_num_experts = 4"),
    ("aria_text", {**ARIA, "moe_num_shared_experts": 0}, "moe_num_shared_experts = 0"),
    ("ctrl", {"n_embd": 63}, "n_embd = 63"),
    ("ctrl", {"n_embd": 64, "n_head": 5}, "n_embd = 64 is not a multiple of n_head = 5"),
    ("dbrx", {"n_heads": 5}, "d_model = 2048 is not a multiple of n_heads = 5"),
    ("dbrx", {"attn_config": {"kv_n_heads": 3}}, "n_heads = 16 is not a multiple of attn_config.kv_n_heads = 3"),
    ("dbrx", {"attn_config": {"clip_qkv": 0}}, "clip_qkv = 0"),
    ("dbrx", {"attn_config": {"rope_theta": "x"}}, "rope_theta"),
    ("dbrx", {"ffn_config": {"moe_top_k": 5}}, "moe_top_k = 5 is more than moe_num_experts = 4"),
    ("dbrx", {"ffn_config": {"moe_normalize_expert_weights": 2}}, "ffn_config.moe_normalize_expert_weights = 2"),
    ("dbrx", {"ffn_config": {"ffn_act_fn": {"name": "gelu"}}}, 'ffn_config.ffn_act_fn = "gelu"'),
    ("dbrx", {"ffn_config": {"ffn_act_fn": "silu"}}, "ffn_act_fn"),
    ("dbrx", {"tie_word_embeddings": True}, "tie_word_embeddings = true"),
    ("diffllama", {"num_key_value_heads": 1}, "num_key_value_heads = 1 in config.json leaves a head of values"),
    ("doge", {"is_moe": True}, "is_moe = true in config.json mixes the choice of experts"),
    ("doge", {"keep_window_size": 0}, "keep_window_size = 0"),
    ("doge", {"sliding_window": -1}, "sliding_window = -1"),
    ("gpt_neox_japanese", {"num_attention_heads": 5}, "hidden_size = 64 is not a multiple of num_attention_heads = 5"),
    ("gpt_neox_japanese", {"rotary_pct": 0.01}, "0 elements cannot be rotated"),
    ("gpt_neox_japanese", {"intermediate_multiple_size": 0}, "intermediate_multiple_size = 0"),
    ("jetmoe", {**JETMOE, "num_experts_per_tok": 5}, "num_experts_per_tok = 5 is more than num_local_experts = 4"),
    ("jetmoe", {**JETMOE, "kv_channels": 7}, "head_dim = 7: 7 elements cannot be rotated"),
    ("jetmoe", {**JETMOE, "activation_function": "gelu"}, "activation_function = 'gelu'"),
    ("mllama_text_model", {"cross_attention_layers": [1, 3]}, "cross_attention_layers wants a list of numbers"),
    ("mllama_text_model", {"cross_attention_layers": "all"}, "cross_attention_layers wants a list"),
    ("mllama_text_model", {"cross_attention_layers": [0, 1, 2]}, "cross_attention_layers leaves no layer"),
    ("modernbert-decoder", {"layer_types": ["full_attention"]}, "layer_types wants, for each of 3 layers"),
    ("modernbert-decoder", {"local_attention": None}, "local_attention = null"),
    ("modernbert-decoder", {"local_attention": 0}, "local_attention = 0"),
    ("modernbert-decoder", {"classifier_activation": "x"}, "classifier_activation = 'x'"),
    ("modernbert-decoder", {"global_rope_theta": "x"}, "global_rope_theta"),
    ("openai-gpt", {"afn": "gelu_fast"}, 'afn = "gelu_fast"'),
    ("openai-gpt", {"n_embd": 3}, "n_embd = 3 is not a multiple of n_head = 12"),
    ("recurrent_gemma", {"block_types": ["recurrent", "mamba"]}, "block_types wants words of recurrent and attention"),
    ("recurrent_gemma", {"lru_width": 66}, "lru_width = 66 is not a multiple of num_attention_heads = 4"),
    ("recurrent_gemma", {"attention_window_size": 0}, "attention_window_size = 0"),
    ("recurrent_gemma", {"conv1d_width": 1.5}, "conv1d_width = 1.5"),
    ("xglm", {"d_model": 3, "attention_heads": 1}, "d_model = 3 in config.json leaves a sine without a cosine"),
    ("xglm", {"d_model": 2, "attention_heads": 1}, "d_model = 2 in config.json is too narrow for two frequencies"),
    ("ctrl", {"n_embd": 3, "n_head": 1}, "n_embd = 3 in config.json leaves a sine without a cosine"),
    ("xglm", {"d_model": 64, "attention_heads": 5}, "d_model = 64 is not a multiple of attention_heads = 5"),
    ("mpt", {"attn_config": {"alibi": False}}, "attn_config.alibi = false in config.json changes"),
    ("mpt", {"attn_config": {"alibi_bias_max": 16}}, "attn_config.alibi_bias_max = 16 in config.json changes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "settings", "key"),
    [
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ("qwen2", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}}, "_factor = 0.25"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "attn_config.qk_ln = true"),
        (
            "chatglm",
            {"rmsnorm": False, "padded_vocab_size": 64, "ffn_hidden_size": 64, "num_layers": 2, "seq_length": 64},
            "rmsnorm = false",
        ),
        (
            "bloom",
            {"apply_residual_connection_post_layernorm": True},
            "apply_residual_connection_post_layernorm = true",
        ),
        ("falcon_h1", {"attention_bias": True, "attention_in_multiplier": 2.0}, "attention_in_multiplier = 2.0"),
    ],
)
def test_a_setting_that_is_not_built_is_refused_with_key_value_file_and_model(
    family: str, settings: dict[str, Any], key: str, tmp_path: Path
) -> None:
    config = Configuration(tmp_path / "config.json", {**SIZES, "model_type": family, **settings})
    with pytest.raises(ModelError, match=re.escape(f"{key} in config.json ")) as caught:
        own_family(family)(config)
    assert f"not supported for {family} models" in caught.value.what and caught.value.cure


@pytest.mark.parametrize(("family", "settings", "message"), WRONG)
def test_a_wrong_value_is_refused_with_its_key(
    family: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = Configuration(tmp_path / "config.json", {**SIZES, "model_type": family, **settings})
    with pytest.raises(ModelError, match=message) as caught:
        own_family(family)(config)
    assert caught.value.cure


def test_the_last_layer_of_gemma_4_is_full_whatever_is_said(tmp_path: Path) -> None:
    settings = {"layer_types": ["sliding_attention"] * 3, "sliding_window": 8, "hidden_size_per_layer_input": 0}
    config = Configuration(tmp_path / "config.json", {**SIZES, "model_type": "gemma4_text", **settings})
    attention = [layer.steps[0].branches[0].part for layer in own_family("gemma4_text")(config).layers]
    assert [each.window for each in attention] == [8, 8, None]


def test_older_words_for_kinds_of_layers_mean_the_same(tmp_path: Path) -> None:
    def composed(**settings: Any) -> Any:
        config = {**SIZES, "model_type": "nemotron_h", "head_dim": 16, "mamba_num_heads": 8, **settings}
        return own_family("nemotron_h")(Configuration(tmp_path / "config.json", config)).layers

    now = composed(layers_block_type=["linear_attention", "mlp", "full_attention"])
    assert composed(layers_block_type=["mamba", "mlp", "attention"]) == now
    assert composed(hybrid_override_pattern="M-*") == now


def test_the_published_keys_of_mimo_mean_what_transformers_saves(tmp_path: Path) -> None:
    def composed(**settings: Any) -> Any:
        config = {**SIZES, **MIMO, "model_type": "mimo_v2_flash", "num_key_value_heads": 1, **settings}
        return own_family("mimo_v2_flash")(Configuration(tmp_path / "config.json", config))

    kinds = ("full_attention", "sliding_attention")
    rotary = {"rope_type": "default", "partial_rotary_factor": 0.334}
    saved = composed(
        layer_types=[kinds[0], kinds[1], kinds[1]],
        mlp_layer_types=["dense", "sparse", "dense"],
        rope_parameters={kind: {**rotary, "rope_theta": theta} for kind, theta in zip(kinds, (5e5, 2e4), strict=True)},
        rms_norm_eps=1e-4,
        sliding_window=17,
    )
    published = composed(
        hybrid_layer_pattern=[0, 1, 1],
        moe_layer_freq=[0, 1, 0],
        rope_theta=5e5,
        swa_rope_theta=2e4,
        partial_rotary_factor=0.334,
        layernorm_epsilon=1e-4,
        sliding_window=16,
        sliding_window_size=16,
        swa_num_key_value_heads=2,
        add_swa_attention_sink_bias=True,
        routed_scaling_factor=None,
        attention_chunk_size=16,
    )
    assert published == saved


def test_the_published_keys_of_longcat_mean_what_transformers_saves(tmp_path: Path) -> None:
    def composed(**settings: Any) -> Any:
        sizes = {key: value for key, value in SIZES.items() if key not in ("num_hidden_layers", "intermediate_size")}
        config = {**sizes, **LONGCAT, "model_type": "longcat_flash", "num_layers": 2, "ffn_hidden_size": 96, **settings}
        return own_family("longcat_flash")(Configuration(tmp_path / "config.json", config))

    saved = composed(zero_expert_num=3, rope_parameters={"rope_type": "default", "rope_theta": 1e7})
    assert composed(zero_expert_num=3, zero_expert_type="identity", mla_scale_q_lora=True, rope_theta=1e7) == saved


def test_infinity_is_read_as_transformers_writes_it(tmp_path: Path) -> None:
    def limits(value: Any) -> Any:
        config = {**SIZES, "model_type": "mamba2", "time_step_limit": value}
        return own_family("mamba2")(Configuration(tmp_path / "config.json", config)).parts[0].limits

    for infinite in (float("inf"), {"__float__": "Infinity"}):
        assert limits([0.0, infinite]) == (0.0, float("inf"))
    assert limits([0.001, 0.5]) == (0.001, 0.5)
