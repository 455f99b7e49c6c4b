"""A GGUF file's metadata as the settings of config.json, and its tensors' names in transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from drupe.api import ModelError
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.gguf.header import TensorInfo

FROM_THE_SOURCE = "use the checkpoint that the file was made from"

# From llama.cpp's architecture to transformers' model_type and class.
ARCHITECTURES = {
    "llama": ("llama", "LlamaForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
}
KEYS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
}
TOKENS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"}
# Settings that change what the model computes and that are not supported; the values 0 and 1 change nothing.
FOREIGN = ("expert_count", "logit_scale", "residual_scale", "embedding_scale", "attention.scale",
           "attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window")  # fmt: skip
POOLS = (1, 2, 3, 4)
"""Values of pooling_type in files of models that do not generate text: mean, first token, last token, rank."""

GLOBAL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FREQUENCIES = "rope_freqs.weight"


def name_of(tensor: str) -> str:
    """transformers' name of a tensor; llama.cpp's where transformers has none."""
    stem, _, kind = tensor.rpartition(".")
    if stem in GLOBAL:
        return f"{GLOBAL[stem]}.{kind}"
    parts = stem.split(".")
    if len(parts) == 3 and parts[0] == "blk" and parts[2] in BLOCK:
        return f"model.layers.{parts[1]}.{BLOCK[parts[2]]}.{kind}"
    return tensor


def architecture_of(metadata: Configuration) -> str:
    """llama.cpp's name of the architecture. Raises ModelError for one that is not supported."""
    name = metadata.text("general.architecture")
    if name not in ARCHITECTURES:
        raise ModelError(
            f"GGUF files of the architecture '{name}' are not supported; supported: {', '.join(ARCHITECTURES)}",
            where=metadata.path,
            cure=FROM_THE_SOURCE,
        )
    if metadata.get("split.count", 0) > 1:
        raise ModelError(
            "the model was split into several files, and this is one of them",
            where=metadata.path,
            cure="join them: llama-gguf-split --merge FIRST OUTPUT",
        )
    return name


def configuration(
    metadata: Configuration, tensors: Mapping[str, TensorInfo], frequencies: tuple[float, ...] | None
) -> Configuration:
    """The settings of config.json. frequencies: factors that the file divides rotary frequencies by, or None."""
    architecture = architecture_of(metadata)
    model_type, model_class = ARCHITECTURES[architecture]
    own = {key.removeprefix(f"{architecture}."): value for key, value in metadata.items()}
    for key in FOREIGN:
        if own.get(key, 0) not in (0, 1):
            raise ModelError(
                f"the file sets {key} = {own[key]}, which is not supported", where=metadata.path, cure=FROM_THE_SOURCE
            )
    if own.get("pooling_type", 0) in POOLS:
        raise ModelError(
            f"the file sets pooling_type = {own['pooling_type']}, so it gives embeddings or scores; they are made from "
            "a checkpoint's folder only",
            where=metadata.path,
            cure=FROM_THE_SOURCE,
        )
    found: dict[str, Any] = {"model_type": model_type, "architectures": [model_class]}
    found |= {name: own[key] for key, name in KEYS.items() if key in own}
    found |= {
        name: metadata[f"tokenizer.ggml.{key}"] for key, name in TOKENS.items() if f"tokenizer.ggml.{key}" in metadata
    }
    found["vocab_size"] = tensors["token_embd.weight"].shape[0] if "token_embd.weight" in tensors else None
    found["tie_word_embeddings"] = "output.weight" not in tensors
    found["attention_bias"] = "blk.0.attn_output.bias" in tensors
    found["rope_parameters"] = _rope(own, found, frequencies, metadata)
    if "head_dim" not in found and found.get("num_attention_heads"):
        found["head_dim"] = found.get("hidden_size", 0) // found["num_attention_heads"]
    if (rotated := own.get("rope.dimension_count")) not in (None, found.get("head_dim")):
        raise ModelError(
            f"the model rotates {rotated} of {found.get('head_dim')} values of a head, which is not supported",
            where=metadata.path,
            cure=FROM_THE_SOURCE,
        )
    return Configuration(metadata.path, found)


def _rope(
    own: Mapping[str, Any], found: Mapping[str, Any], frequencies: tuple[float, ...] | None, metadata: Configuration
) -> dict[str, Any]:
    theta = float(own.get("rope.freq_base", 10_000.0))
    kind = own.get("rope.scaling.type", "none")
    if frequencies is not None:
        return {"rope_theta": theta, **_llama3(frequencies, theta, metadata)}
    if kind == "none":
        return {"rope_type": "default", "rope_theta": theta}
    if kind == "linear":
        return {"rope_type": "linear", "rope_theta": theta, "factor": own.get("rope.scaling.factor", 1.0)}
    if kind == "yarn":
        original = own.get("rope.scaling.original_context_length", found.get("max_position_embeddings"))
        factor = own.get("rope.scaling.factor", 1.0)
        return {
            "rope_type": "yarn",
            "rope_theta": theta,
            "factor": factor,
            "original_max_position_embeddings": original,
        }
    raise ModelError(f"the rotary scaling '{kind}' is not supported", where=metadata.path, cure=FROM_THE_SOURCE)


def _llama3(frequencies: tuple[float, ...], theta: float, metadata: Configuration) -> dict[str, Any]:
    """The settings of Llama 3.1 or 3.2 that give these factors: the file keeps only the factors."""
    for factor in (8.0, 32.0):
        settings = {"factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        given = _llama3_factors(len(frequencies), theta, factor)
        if all(math.isclose(mine, theirs, rel_tol=1e-3) for mine, theirs in zip(given, frequencies, strict=True)):
            return {"rope_type": "llama3", "original_max_position_embeddings": 8192, **settings}
    raise ModelError(
        f"the rotary scaling in '{ROPE_FREQUENCIES}' is not supported: it is neither Llama 3.1's nor 3.2's",
        where=metadata.path,
        cure=FROM_THE_SOURCE,
    )


def _llama3_factors(pairs: int, theta: float, factor: float, low: float = 1.0, high: float = 4.0) -> list[float]:
    """The factor that Llama 3 divides each frequency by, as llama.cpp's converter computes it."""
    factors = []
    for pair in range(pairs):
        turns = 8192 / (2 * math.pi * theta ** (pair / pairs))
        smooth = (turns - low) / (high - low)
        factors.append(1.0 if turns > high else factor if turns < low else 1 / ((1 - smooth) / factor + smooth))
    return factors
