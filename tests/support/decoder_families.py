"""A small random model of every family of decoders, with the family's awkward choices turned on.

Every tensor is random: norms that are all one and biases that are all zero hide mistakes. Families whose code is not in
transformers are made of a family that computes the same: its tensors get their names and places.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny

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
TWO_TYPES = ["sliding_attention", "full_attention", "sliding_attention", "full_attention", "sliding_attention"]


@dataclass(frozen=True)
class Case:
    """One small model. family: its `model_type`. settings: what differs from SIZES, or from GPT_SIZES.

    shows: what is turned on, in a few words. told_as: makes of the saved model one of a family that transformers lacks.
    """

    family: str
    shows: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=lambda: SIZES)
    told_as: Callable[[dict[str, Any], dict[str, Any]], tuple[dict[str, Any], dict[str, Any]]] | None = None


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


CASES: Mapping[str, Case] = {
    "apertus": Case("apertus", "xIELU, norms of query and key"),
    "arcee": Case("arcee", "an MLP without a gate", {"head_dim": 32}),
    "baichuan": Case("llama", "one matrix for query, key and value", {"num_key_value_heads": 4}, told_as=_baichuan),
    "bitnet": Case("bitnet", "norms before the last products"),
    "chatglm": Case("glm", "one matrix for query, key and value", {"head_dim": 32}, told_as=_chatglm),
    "codegen": _gpt("codegen", "fused in four groups, part of a head rotated", rotary_dim=8),
    "cohere": Case("cohere", "side by side, norms of each head's query and key", {"use_qk_norm": True}),
    "cohere2": Case("cohere2", "windows, layers without rotation", {"head_dim": 32, "sliding_window": WINDOW}),
    "cwm": Case(
        "cwm", "windows, Llama 3's rotation", {"head_dim": 32, "sliding_window": WINDOW, "rope_parameters": LLAMA3}
    ),
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
    "falcon": Case("falcon", "one key for all heads, side by side"),
    "falcon, groups": Case("falcon", "keys by group, two norms", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon, groups, one norm": Case(
        "falcon", "keys by group, one norm",
        {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ),
    "falcon, in series": Case("falcon", "biases", {"multi_query": False, "parallel_attn": False, "bias": True}),
    "gemma": Case("gemma", "norms plus one, scaled embedding", {"head_dim": 32}),
    "gemma2": Case(
        "gemma2", "softcaps, windows, norms before and after",
        {"head_dim": 32, "sliding_window": WINDOW, "query_pre_attn_scalar": 48, "attn_logit_softcapping": 2.0,
         "final_logit_softcapping": 3.0},
    ),
    "gemma3_text": Case(
        "gemma3_text", "two rotary bases, windows", {"head_dim": 32, "sliding_window": WINDOW, "num_hidden_layers": 7}
    ),
    "glm": Case("glm", "neighbours of half a head rotated, fused gate and up", {"head_dim": 32}),
    "glm4": Case("glm4", "norms before and after", {"head_dim": 32}),
    "gpt2": _gpt("gpt2", "learned positions, transposed matrices"),
    "gpt2, by depth": _gpt("gpt2", "scale by depth", scale_attn_by_inverse_layer_idx=True),
    "gpt_bigcode": _gpt("gpt_bigcode", "one key for all heads"),
    "gpt_bigcode, all heads": _gpt("gpt_bigcode", "fused by head", multi_query=False),
    "gpt_neox": Case("gpt_neox", "fused by head, two norms side by side", {"num_attention_heads": 2}),
    "gpt_neox, 20 of 80 rotated": Case(
        "gpt_neox", "a rotation that no operator has inside", {"num_attention_heads": 2, "hidden_size": 160}
    ),
    "gpt_neox, in series": Case("gpt_neox", "one after the other", {"use_parallel_residual": False}),
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
    "llama": Case("llama", "biases, tied", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "minicpm": Case(
        "granite", "factors",
        {"embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.4, "attention_multiplier": 0.25},
        told_as=_minicpm,
    ),
    "ministral": Case(
        "ministral", "windows by layer", {"head_dim": 32, "sliding_window": WINDOW, "layer_types": TWO_TYPES}
    ),
    "ministral3": Case("ministral3", "queries that grow, YaRN", {"head_dim": 32, "rope_parameters": MINISTRAL3}),
    "mistral": Case("mistral", "a window on all layers", {"sliding_window": WINDOW, "head_dim": 32}),
    "nanochat": Case("nanochat", "norms without weights, rotates the other way"),
    "nemotron": Case("nemotron", "norms plus one, half of a head rotated", {"head_dim": 32, "attention_bias": True}),
    "olmo": Case("olmo", "norms without weights, limited query, key and value", {"clip_qkv": 0.3}),
    "olmo2": Case("olmo2", "norms on results, and over all of query and key"),
    "olmo3": Case("olmo3", "windows, two rotary embeddings", {"sliding_window": WINDOW}),
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
}  # fmt: skip
"""By name. The name begins with the family's `model_type`."""


def model_type_of(name: str) -> str:
    """The family of a case, as Drupe knows it."""
    return name.partition(",")[0]


def make(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a case's checkpoint. Returns it, and the one that transformers opens, which is another for some."""
    case = CASES[name]
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
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    settings = {**case.sizes, **case.settings}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(case.family, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 1.0 if parameter.ndim == 1 and float(parameter.float().mean()) == 1.0 else 0.0
            parameter.copy_(centre + torch.randn(parameter.shape) * 0.15)
    model.tie_weights()
    model.float().save_pretrained(folder)
    tiny.write_tokenizer(folder)


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
