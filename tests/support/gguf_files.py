"""GGUF files made from tiny checkpoints, with the layout of llama.cpp's converter."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8}
GLOBAL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
BLOCK = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def quantized(matrix: np.ndarray, kind: str) -> tuple[bytes, np.ndarray]:
    """A matrix in a GGUF type as bytes, and the float32 values that the bytes stand for."""
    if kind in ("F32", "F16"):
        stored = matrix.astype(np.float32 if kind == "F32" else np.float16)
        return stored.tobytes(), stored.astype(np.float32)
    blocks = matrix.reshape(-1, 32).astype(np.float32)
    if kind == "Q8_0":
        scales = (np.abs(blocks).max(1, keepdims=True) / 127).astype(np.float16)
        levels = np.round(blocks / scales.astype(np.float32)).astype(np.int8)
        values = levels * scales.astype(np.float32)
        parts = [scales.view(np.uint8), levels.view(np.uint8)]
    else:
        if kind == "Q4_0":
            largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1, keepdims=True), 1)
            scales, least = (largest / -8).astype(np.float16), None
            offset = np.full_like(scales, -8).astype(np.float32) * scales.astype(np.float32)
        else:
            least = blocks.min(1, keepdims=True).astype(np.float16)
            scales = ((blocks.max(1, keepdims=True) - least) / 15).astype(np.float16)
            offset = least.astype(np.float32)
        levels = np.clip(np.round((blocks - offset) / scales.astype(np.float32)), 0, 15).astype(np.uint8)
        values = levels * scales.astype(np.float32) + offset
        halves = levels[:, :16] | (levels[:, 16:] << 4)
        parts = [scales.view(np.uint8), *([] if least is None else [least.view(np.uint8)]), halves]
    return np.concatenate(parts, 1).tobytes(), values.reshape(matrix.shape).astype(np.float32)


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """The rows in the order that llama.cpp's rotary embedding needs, as from its converter's `permute`."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@dataclass
class GgufFile:
    """A file that is being made: metadata, and tensors as (type, shape, bytes). values: their values, by HF names."""

    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.metadata))
        head += b"".join(_string(key) + _value(value) for key, value in self.metadata.items())
        data, placed = b"", []
        for name, (kind, shape, content) in self.tensors.items():
            data += bytes(-len(data) % 32)
            placed.append(
                _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], TYPES[kind], len(data))
            )
            data += content
        head += b"".join(placed)
        path.write_bytes(head + bytes(-len(head) % 32) + data)
        return path


def gguf_of(source: Path, kind: str, ends: str | None = None) -> GgufFile:
    """The checkpoint `source` as a GGUF file with its matrices in `kind`, embedding and head in `ends`."""
    from safetensors.numpy import load_file

    config = json.loads((source / "config.json").read_text())
    made = GgufFile(_metadata(config, source))
    for name, tensor in load_file(source / "model.safetensors").items():
        stem, _, suffix = name.rpartition(".")
        end = stem in GLOBAL
        if end:
            own = f"{GLOBAL[stem]}.{suffix}"
        else:
            _, _, layer, inner = stem.split(".", 3)
            own = f"blk.{layer}.{BLOCK[inner]}.{suffix}"
        heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(own.split(".")[-2])
        turned = heads is not None and config["model_type"] == "llama"
        rows = permuted(tensor, config[heads]) if turned else tensor
        used = "F32" if tensor.ndim == 1 else (ends or kind) if end else kind
        content, values = quantized(rows, used)
        made.tensors[own] = (used, tensor.shape, content)
        made.values[name] = np.ascontiguousarray(unpermuted(values, config[heads]) if turned else values)
    return made


def _metadata(config: dict[str, Any], source: Path) -> dict[str, Any]:
    name = config["model_type"]
    own = {
        "context_length": config["max_position_embeddings"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "embedding_length": config["hidden_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(config.get("rope_parameters", {}).get("rope_theta", 10000.0)),
    }
    if config.get("head_dim"):
        own["attention.key_length"] = config["head_dim"]
    return {
        "general.architecture": name,
        **{f"{name}.{key}": value for key, value in own.items()},
        **_tokenizer(json.loads((source / "tokenizer.json").read_text()), config),
    }


def _tokenizer(document: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    tokens = sorted(document["model"]["vocab"], key=document["model"]["vocab"].__getitem__)
    special = {token["id"] for token in document["added_tokens"]}
    padding = [f"[PAD{number}]" for number in range(len(tokens), config["vocab_size"])]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*tokens, *padding],
        "tokenizer.ggml.token_type": [3 if at in special else 1 for at in range(len(tokens))] + [5] * len(padding),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in document["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
        "tokenizer.chat_templates": ["tool_use", "../out"],
        "tokenizer.chat_template.tool_use": "{{ tools | tojson }}",
        "tokenizer.chat_template.../out": "not a file",
    }


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    kind = 8 if isinstance(value[0], str) else 5
    items = b"".join(_string(each) if kind == 8 else struct.pack("<i", each) for each in value)
    return struct.pack("<IIQ", 9, kind, len(value)) + items
