"""Keys of config.json that no family reads by itself: they change nothing, or they are built for some values only.

What a family reads is recorded while its decoder is composed. What any other key does is what it does in transformers'
class of the family. A key that this class ignores although it changes what other models compute is not ignored here:
somebody wrote it there for a reason, so it is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from drupe.api import Record
from drupe_checkpoints import Configuration

DEFAULT_CONTEXT = 2048
"""`max_position_embeddings` where config.json of a Llama or Granite does not say it."""
OFF: tuple[Any, ...] = (None, False, 0, "", [], {})
"""Values with which a setting is off."""


def _off(value: Any, config: Configuration) -> bool:
    return value in OFF


class Limited(Record):
    """A key that is built only for values that `allows` accepts, because they change nothing.

    means: what any other value asks for. cure: empty for a key that transformers' class ignores.
    """

    means: str
    allows: Callable[[Any, Configuration], bool] = _off
    cure: str = ""


def _is(*values: Any) -> Callable[[Any, Configuration], bool]:
    return lambda value, config: value in values


def _all(*values: Any) -> Callable[[Any, Configuration], bool]:
    """Whether a list holds no other values than these."""
    return lambda value, config: value in OFF or (isinstance(value, list) and all(each in values for each in value))


def _no_window(value: Any, config: Configuration) -> bool:
    """Whether a sliding window never leaves a token out. `use_sliding_window` counts only for families that read it."""
    longest = config.integer("max_position_embeddings", DEFAULT_CONTEXT)
    return value is None or (isinstance(value, int) and value >= longest)


def _as_the_window(value: Any, config: Configuration) -> bool:
    """Whether all layers are of the one type that `sliding_window` makes them."""
    kind = "full_attention" if config.get("sliding_window", 0) is None else "sliding_attention"
    return _all(kind)(value, config)


def _as_hidden_act(value: Any, config: Configuration) -> bool:
    return value in (None, config.get("hidden_act", "silu"))


def _as_gemmas_hidden_act(value: Any, config: Configuration) -> bool:
    """Gemma's `hidden_act` is the tanh form of GELU by default, and where it says gelu."""
    tanh = "gelu_pytorch_tanh"
    stated = config.get("hidden_act", tanh)
    return value in (None, tanh if stated == "gelu" else stated)


EXPERTS = "asks for experts"
NOT_A_GENERATOR = "use the causal language model that the checkpoint was made from"
LATER = "lets each token read later ones"
CAUSAL = 'remove the key; if the model was trained so, write "is_causal": false, which is what transformers reads'
ONE_ATTENTION = "choose a model whose layers all compute alike"
WINDOW = 'set "sliding_window": null if the model was trained without a window, or use a mistral or qwen2 configuration'

READ_ELSEWHERE = frozenset(
    {
        "architectures", "bos_token_id", "dtype", "eos_token_id", "is_causal", "model_type", "pad_token_id",
        "quantization", "quantization_config", "torch_dtype",
    }
)  # fmt: skip
"""Keys that are used, but not by families."""

NEUTRAL = frozenset(
    {
        # transformers 5
        "chunk_size_feed_forward", "id2label", "initializer_range", "label2id", "name_or_path", "num_labels",
        "output_attentions", "output_hidden_states", "problem_type", "return_dict", "transformers_version",
        "use_cache", "attn_implementation", "experts_implementation", "fusion_config", "distributed_config",
        "tie_last_hidden_states", "serialize_explicit_per_layer_config",
        "allow_global_per_layer_attribute_access",
        # training and dropout, which a package does not do
        "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "classifier_dropout", "dropout",
        "embd_pdrop", "embedding_dropout", "ffn_dropout", "gradient_checkpointing", "hidden_dropout",
        "hidden_dropout_prob", "initializer_factor", "layerdrop", "loss_type", "resid_pdrop",
        "aux_loss_alpha", "embedding_initializer_range", "ep_size", "residual_dropout", "router_aux_loss_coef",
        "seq_aux", "output_router_logits", "z_loss_coefficient",
        "use_fused_rope", "use_fused_cross_entropy",
        # kernels: the same numbers in another way
        "attention_backend", "pretraining_tp", "rope_impl", "use_flash_attention", "use_flash_attention_2",
        "use_flash_attn", "use_sdpa", "use_memory_efficient_attention", "use_fused_rms_norm", "use_bfloat16",
        "torchscript", "tf_legacy_loss", "tie_encoder_decoder", "is_decoder", "pad_vocab_size_multiple",
        "pad_to_multiple_of",
        # biases: whether there are any is seen by the tensors, which have to be those of the recipe
        "bias", "use_bias", "qkv_bias", "o_bias", "no_bias", "add_bias_linear", "add_qkv_bias",
        "lm_head_bias", "attention_out_bias", "attention_qkv_bias", "use_qkv_bias", "attention_bias",
        "mlp_bias",
        # sizes of families that do not have them: they would be seen by the tensors as well
        "head_dim", "intermediate_size", "num_key_value_heads", "num_kv_heads", "multi_query_group_num",
        # of families that say it in another way: they read another key
        "chunk_size", "embedding_fraction", "expansion_ratio", "hidden_act", "layer_norm_eps", "learned_pos_emb",
        "mamba_chunk_size", "mamba_expand", "moe_norm_min", "norm_topk_prob", "num_hidden_layers", "time_step_rank",
        # training, noise and initial values; layers that predict several tokens at once
        "emb_pdrop", "init_device", "input_jitter_noise", "linear_a_log_max", "linear_a_log_min",
        "linear_dt_init_floor", "linear_dt_max", "linear_dt_min", "mtp_layer_types", "mtp_mlp_layer_types",
        "num_logits_to_keep", "rescale_prenorm_residual", "router_jitter_noise", "slow_but_exact",
        "expand", "residual_in_fp32", "mamba_ssm_cache_dtype", "moe_shared_expert_overlap", "mtp_layers_block_type",
        "use_mamba_kernels", "vocab_size_per_layer_input",
        "time_step_floor", "time_step_max", "time_step_min", "enable_moe_fp32_combine", "_heterogeneity_spec",
        # rotary embeddings of families that have none; the others read these keys
        "rope_parameters", "rope_scaling", "rope_theta",
        # settings of other heads than that of a language model, and of precision while training
        "attention_softmax_in_fp32", "reorder_and_upcast_attn", "scale_attention_softmax_in_fp32",
        "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
        # settings of the tokenizer, of other programs, and notes
        "eod_token_id", "ignore_keys_at_rope_validation",
        "_name_or_path", "_commit_hash", "auto_map", "base_model", "base_model_name_or_path", "bos_token",
        "cls_token_id", "eos_token", "finetuning_task", "fp16", "bf16", "fp32", "license", "mask_token_id",
        "max_sequence_length", "max_seq_len", "max_seq_length", "model_file", "model_max_length",
        "model_name", "n_ctx", "n_positions", "pad_token", "prefix", "sep_token_id", "seq_length", "seq_len",
        "task_specific_params", "tokenizer_class", "tokenizer_model_max_length", "tokenizer_padding_side",
        "transformers.js_config", "unk_token", "unk_token_id", "unsloth_fixed", "unsloth_version", "version",
        "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id", "vision_token_id",
        "boi_token_id", "eoi_token_id", "ignore_index", "num_nextn_predict_layers", "mtp_num_layers",
        "_attn_implementation", "_attn_implementation_autoset", "_flash_attn_2_enabled",
        "_attn_implementation_internal", "_experts_implementation_internal", "_output_attentions",
        "_experts_implementation",
        # windows of families that cannot switch them on or off: `sliding_window` decides
        "max_window_layers", "use_sliding_window",
    }
)  # fmt: skip

LIMITED: Mapping[str, Limited] = {
    # Honoured by transformers for every decoder
    "is_encoder_decoder": Limited("asks for an encoder", cure=NOT_A_GENERATOR),
    "per_layer_config": Limited("gives single layers settings of their own", cure=ONE_ATTENTION),
    "attention_chunk_size": Limited("cuts attention into chunks", cure=ONE_ATTENTION),
    "kv_sharing_modes": Limited("lets layers share keys and values", cure=ONE_ATTENTION),
    "transformers_weights": Limited(
        "names another file of weights",
        _is(None, "model.safetensors", "model.safetensors.index.json"),
        "rename that file to model.safetensors (an index: to model.safetensors.index.json) and remove the key",
    ),
    "sliding_window": Limited("limits what attention reads", _no_window, WINDOW),
    "layer_types": Limited("gives layers different kinds of attention", _all("full_attention"), ONE_ATTENTION),
    "mlp_layer_types": Limited("gives layers different kinds of MLP", _all("dense"), ONE_ATTENTION),
    # Ignored by transformers' classes of these architectures
    "add_cross_attention": Limited("adds attention to an encoder"),
    "alibi": Limited("replaces the rotary embedding"),
    "attention_multiplier": Limited("scales attention", _is(None, 1.0)),
    "attention_temperature": Limited("scales attention", _is(None, 1.0)),
    "attention_types": Limited("gives layers different kinds of attention", _all("full_attention")),
    "attn_logit_softcapping": Limited("limits the scores of attention"),
    "attn_scale": Limited("scales attention"),
    "attn_temperature_tuning": Limited("scales attention by position"),
    "bidirectional": Limited(LATER, cure=CAUSAL),
    "bidirectional_attention": Limited(LATER, cure=CAUSAL),
    "block_configs": Limited("gives layers different forms"),
    "causal": Limited(LATER, _is(None, True), CAUSAL),
    "clip_qkv": Limited("limits queries, keys and values"),
    "cross_attention_hidden_size": Limited("adds attention to an encoder"),
    "cross_attention_layers": Limited("adds attention to an encoder"),
    "dim_model_base": Limited("scales the logits"),
    "embedding_multiplier": Limited("scales the embedding", _is(None, 1.0)),
    "embedding_size": Limited("gives the embedding a size of its own", lambda value, config: value in (
        None, config.get("hidden_size"), config.get("vocab_size"))),
    "expert_layer_period": Limited(EXPERTS),
    "final_logit_softcapping": Limited("limits the logits"),
    "first_k_dense_replace": Limited(EXPERTS),
    "hidden_activation": Limited("names another activation function than hidden_act", _as_hidden_act),
    "activation_function": Limited("names another activation function than hidden_act", _as_hidden_act),
    "activation": Limited("names another activation function than hidden_act", _as_hidden_act),
    "kv_lora_rank": Limited("asks for latent attention"),
    "kv_mixed_precision": Limited("gives layers different forms"),
    "q_lora_rank": Limited("asks for latent attention"),
    "layer_scale": Limited("scales each layer"),
    "logit_scale": Limited("scales the logits", _is(None, 1.0)),
    "logits_scaling": Limited("scales the logits", _is(None, 1.0)),
    "logits_soft_cap": Limited("limits the logits"),
    "logit_softcapping": Limited("limits the logits"),
    "lm_head_multiplier": Limited("scales the logits", _is(None, 1.0)),
    "key_multiplier": Limited("scales keys", _is(None, 1.0)),
    "moe_intermediate_size": Limited(EXPERTS),
    "moe_layer_freq": Limited(EXPERTS),
    "n_routed_experts": Limited(EXPERTS),
    "n_shared_experts": Limited(EXPERTS),
    "no_rope_layers": Limited("leaves out the rotary embedding in some layers", _all(1, True)),
    "no_rope_layer_interval": Limited("leaves out the rotary embedding in some layers"),
    "nope_layer_interval": Limited("leaves out the rotary embedding in some layers"),
    "norm_after": Limited("puts norms behind attention and MLP"),
    "norm_type": Limited("asks for another norm", _is(None, "rms", "rmsnorm", "rms_norm", "RMSNorm")),
    "normalization_type": Limited("asks for another norm", _is(None, "rms", "rmsnorm", "rms_norm", "RMSNorm")),
    "num_experts": Limited(EXPERTS, _is(None, 0)),
    "num_experts_per_tok": Limited(EXPERTS),
    "num_kv_shared_layers": Limited("lets layers share keys and values"),
    "num_local_experts": Limited(EXPERTS),
    "num_loops": Limited("runs the layers several times", _is(None, 1)),
    "parallel_attn": Limited("computes attention and MLP side by side"),
    "parallel_residual": Limited("computes attention and MLP side by side"),
    "position_embedding_type": Limited(
        "replaces the rotary embedding", _is(None, "rope", "rotary", "absolute")  # "absolute" is BERT's default
    ),
    "post_norm": Limited("puts norms behind attention and MLP"),
    "pruned_heads": Limited("removes heads of attention"),
    "qk_layernorm": Limited("normalizes queries and keys"),
    "qk_norm": Limited("normalizes queries and keys"),
    "query_pre_attn_scalar": Limited("scales attention"),
    "residual_multiplier": Limited("scales the residual", _is(None, 1.0)),
    "rope_interleave": Limited("rotates neighbouring values"),
    "rope_interleaved": Limited("rotates neighbouring values"),
    "rope_local_base_freq": Limited("gives layers different rotary embeddings"),
    "rope_pct": Limited("rotates a part of each head", _is(None, 1.0)),
    "rotary_pct": Limited("rotates a part of each head", _is(None, 1.0)),
    "rotary_dim": Limited("rotates a part of each head"),
    "scale_attention_by_inverse_layer_idx": Limited("scales attention by layer"),
    "scale_attn_by_inverse_layer_idx": Limited("scales attention by layer"),
    "scale_attn_weights": Limited("leaves out the scale of attention", _is(None, True)),
    "scale_depth": Limited("scales the residual"),
    "scale_emb": Limited("scales the embedding", _is(None, 1)),
    "scale_embedding": Limited("scales the embedding"),
    "sliding_window_pattern": Limited("gives layers different kinds of attention"),
    "text_config": Limited("puts the model's settings into a section"),
    "audio_config": Limited("adds a model for audio"),
    "vision_config": Limited("adds a model for images"),
    "use_alibi": Limited("replaces the rotary embedding"),
    "use_attention_sinks": Limited("adds sinks to attention"),
    "use_bidirectional_attention": Limited(LATER, cure=CAUSAL),
    "use_bidirectional_attn": Limited(LATER, cure=CAUSAL),
    "use_causal_mask": Limited(LATER, _is(None, True), CAUSAL),
    "use_dynamic_ntk": Limited("stretches the rotary embedding with the length of the text"),
    "use_logn_attn": Limited("scales attention by position"),
    "use_mla": Limited("asks for latent attention"),
    "use_mrope": Limited("asks for positions of images"),
    "use_mup": Limited("scales layers by their width"),
    "use_parallel_residual": Limited("computes attention and MLP side by side"),
    "use_post_norm": Limited("puts norms behind attention and MLP"),
    "use_qk_norm": Limited("normalizes queries and keys"),
    "use_rope": Limited("leaves out the rotary embedding", _is(None, True)),
    "use_rotary_embeddings": Limited("leaves out the rotary embedding", _is(None, True)),
    "use_scaled_rope": Limited("scales the rotary embedding", lambda value, config: value in OFF or bool(
        config.get("rope_scaling") or config.get("rope_parameters"))),
    "word_embed_proj_dim": Limited("gives the embedding a size of its own", lambda value, config: value in (
        None, config.get("hidden_size"))),
}  # fmt: skip

ROPE_USED = frozenset(
    {
        "rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings",
        "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow", "mscale",
        "mscale_all_dim", "truncate", "short_factor", "long_factor", "max_position_embeddings",
    }
)  # fmt: skip
"""The keys inside rope_parameters or rope_scaling that some type of rotary embedding uses."""
ROPE_LIMITED: Mapping[str, Limited] = {
    "alpha": Limited("stretches the rotary embedding in a way of its own"),
    "mrope_interleaved": Limited("asks for positions of images"),
    "llama_4_scaling_beta": Limited("scales attention by position"),
    "rope_interleaved": Limited("rotates neighbouring values"),
}
ROPE_NEUTRAL = frozenset({"finetuned", "mrope_section", "rope_scaling"})

QK_NORM = {name: Limited("leaves out the norms of queries and keys", _is(None, True))
           for name in ("qk_layernorm", "qk_norm", "use_qk_norm")}  # fmt: skip
WITHOUT_PADDING = Limited(
    "lets each token of a text without padding read later ones",
    cure=f'{NOT_A_GENERATOR}; if it gives embeddings, write "is_causal": false in place of the key',
)
"""`use_bidirectional_attention` of Gemma 1 and 2: the mask of a padded batch in transformers is as without it."""
FIXED_ROTARY = {
    "rope_theta": Limited("changes the base of the rotary embedding", _is(None, 10_000)),
    **{name: Limited("changes the rotary embedding") for name in ("rope_parameters", "rope_scaling")},
}
OF_FAMILIES: Mapping[str, Mapping[str, Limited]] = {
    "codegen": FIXED_ROTARY,
    "gemma": {
        "hidden_activation": Limited("names another activation function than hidden_act", _as_gemmas_hidden_act),
        "use_bidirectional_attention": WITHOUT_PADDING,
    },
    "gemma2": {"use_bidirectional_attention": WITHOUT_PADDING},
    "gptj": FIXED_ROTARY,
    "mistral": {"layer_types": Limited("gives layers different kinds of attention", _as_the_window, ONE_ATTENTION)},
    "mpt": {"norm_type": Limited("asks for another norm", _is(None, "low_precision_layernorm"))},
    "qwen3": QK_NORM,
}
"""By `model_type`: limits of a family's own, instead of those of all."""
