"""GGUF files made from checkpoints, with the layout of llama.cpp's converter: for tests, and for a benchmark."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
from gguf.quants import dequantize, quantize

DTYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
"""The element types of safetensors files that are read here. GGUF has the same names for them."""
HEADS = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
"""The matrices whose rows llama.cpp orders by pairs of the rotary embedding, and the keys of their heads."""
PLAIN, SPECIAL, UNUSED = 1, 3, 5
"""GGUF's types of tokens."""


def quantized(matrix: np.ndarray, kind: str) -> np.ndarray:
    """A matrix in a type of GGUF, as bytes."""
    if matrix.dtype == DTYPES.get(kind):
        return matrix.view(np.uint8)
    return quantize(matrix.astype(np.float32), gguf.GGMLQuantizationType[kind]).view(np.uint8)


def values_of(content: np.ndarray, kind: str) -> np.ndarray:
    """The float32 values that the bytes of a matrix stand for."""
    if kind in DTYPES:
        return content.view(DTYPES[kind]).astype(np.float32)
    return dequantize(content, gguf.GGMLQuantizationType[kind])


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """The rows in the order that llama.cpp's rotary embedding needs, as from its converter's `permute`."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@dataclass
class GgufFile:
    """A file that is being made: metadata, and tensors as (type, shape, bytes).

    origins: the tensors of the checkpoint, with their names here, and the heads whose rows are permuted.
    """

    metadata: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...], np.ndarray]] = field(default_factory=dict)
    origins: dict[str, tuple[str, int | None]] = field(default_factory=dict)

    def values(self) -> dict[str, np.ndarray]:
        """The values of the tensors, under their names in the checkpoint and in its order of rows."""
        found = {}
        for name, (own, heads) in self.origins.items():
            kind, _, content = self.tensors[own]
            rows = values_of(content, kind)
            found[name] = np.ascontiguousarray(unpermuted(rows, heads) if heads else rows)
        return found

    def write(self, path: Path) -> Path:
        writer = gguf.GGUFWriter(path, self.metadata["general.architecture"])
        for key, value in self.metadata.items():
            if key != "general.architecture":
                kind = gguf.GGUFValueType.UINT32 if type(value) is int else gguf.GGUFValueType.get_type(value)
                writer.add_key_value(key, value, kind)
        for name, (type_name, shape, content) in self.tensors.items():
            # The writer would take the shape of a tensor of uint8 for one of bytes.
            writer.add_tensor(name, content.view(np.int8), shape, gguf.GGMLQuantizationType[type_name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path


def gguf_of(source: Path, kind: str, ends: str | None = None, splits: str = "gpt-2") -> GgufFile:
    """The checkpoint `source` as a GGUF file with its matrices in `kind`, embedding and head in `ends`.

    splits: GGUF's name of the rules by which its tokenizer splits text.
    """
    config = json.loads((source / "config.json").read_text("utf-8"))
    tokenizer = json.loads((source / "tokenizer.json").read_text("utf-8"))
    made = GgufFile({**_metadata(config), **_tokenizer(tokenizer, config), "tokenizer.ggml.pre": splits})
    architecture = gguf.MODEL_ARCH[config["model_type"].upper()]
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    for name, tensor in tensors(source):
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert own is not None, name
        heads = config.get(HEADS.get(own.split(".")[-2])) if config["model_type"] == "llama" else None
        used = "F32" if tensor.ndim == 1 else kind if own.startswith("blk.") else ends or kind
        made.tensors[own] = used, tensor.shape, quantized(permuted(tensor, heads) if heads else tensor, used)
        made.origins[name] = own, heads
    return made


def tensors(source: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The names and tensors of a checkpoint. No tensor is read before it is used."""
    for file in sorted(source.glob("*.safetensors")):
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start, shape = 8 + size + entry["data_offsets"][0], tuple(entry["shape"])
            yield name, np.memmap(file, DTYPES[entry["dtype"]], "r", start, shape)


def _metadata(config: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp has to know of the model."""
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
        own |= {"attention.key_length": config["head_dim"], "attention.value_length": config["head_dim"]}
    return {"general.architecture": name, **{f"{name}.{key}": value for key, value in own.items()}}


def _tokenizer(document: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer of tokenizer.json, a byte-level BPE."""
    special = {token["id"]: token["content"] for token in document["added_tokens"]}
    known = {number: token for token, number in document["model"]["vocab"].items()} | special
    numbers = range(config["vocab_size"])
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [known.get(number, f"[PAD{number}]") for number in numbers],
        "tokenizer.ggml.token_type": [
            SPECIAL if number in special else PLAIN if number in known else UNUSED for number in numbers
        ],
        "tokenizer.ggml.merges": [
            pair if isinstance(pair, str) else " ".join(pair) for pair in document["model"]["merges"]
        ],
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
    }
