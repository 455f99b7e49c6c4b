"""Write a checkpoint of a Qwen2 or Qwen3 as a GGUF file, and have llama.cpp quantize it: a rival for `drupe benchmark`.

    python3 dev.py bench gguf_file CHECKPOINT FILE [--type Q4_0] [--pure]

Needs llama-cpp-python. The types of the tensors are those that `llama-quantize` chooses; with --pure, all matrices have
the type that is named.
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from measure import note

TYPES = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15}
"""llama.cpp's numbers of file types."""
F32, BF16 = 0, 30
ALIGNMENT = 32
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class Tensor:
    """A bf16 tensor of a safetensors file: vectors become float32, matrices stay as they are."""

    name: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def kind(self) -> int:
        return F32 if len(self.shape) == 1 else BF16

    @property
    def nbytes(self) -> int:
        return (self.end - self.start) * (2 if self.kind == F32 else 1)

    def content(self) -> bytes:
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            raw = stream.read(self.end - self.start)
        if self.kind == BF16:
            return raw
        return b"".join(b"\0\0" + raw[at : at + 2] for at in range(0, len(raw), 2))


def tensors(checkpoint: Path) -> Iterator[Tensor]:
    """The tensors of a checkpoint, under GGUF's names."""
    for file in sorted(checkpoint.glob("*.safetensors")):
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = (8 + size + each for each in entry["data_offsets"])
                yield Tensor(gguf_name(name), tuple(entry["shape"]), file, start, end)


def gguf_name(name: str) -> str:
    """GGUF's name of a tensor."""
    stem, _, suffix = name.rpartition(".")
    if stem in NAMES:
        return f"{NAMES[stem]}.{suffix}"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{INNER[inner]}.{suffix}"


def metadata(checkpoint: Path) -> dict[str, Any]:
    """What llama.cpp has to know of the model and its tokens."""
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text("utf-8"))
    name = config["model_type"]
    own = {
        "context_length": config["max_position_embeddings"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "embedding_length": config["hidden_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(config["rope_parameters"]["rope_theta"]),
    }
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    known = {number: token for token, number in vocabulary.items()} | special
    tokens = [known.get(number, f"[PAD{number}]") for number in range(config["vocab_size"])]
    merges = [each if isinstance(each, str) else " ".join(each) for each in tokenizer["model"]["merges"]]
    return {
        "general.architecture": name,
        "general.name": checkpoint.name,
        **{f"{name}.{key}": value for key, value in own.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if at in special else 1 if at in known else 5 for at in range(len(tokens))],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
    }


def write(every: Iterable[Tensor], told: dict[str, Any], stream: BinaryIO) -> None:
    """A GGUF file of bf16 matrices."""
    listed = sorted(every, key=lambda each: each.name)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(told))
    head += b"".join(_text(key) + _value(value) for key, value in told.items())
    place = 0
    for each in listed:
        shape = each.shape[::-1]
        head += _text(each.name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, each.kind, place)
        place += _aligned(each.nbytes)
    stream.write(head + bytes(_aligned(len(head)) - len(head)))
    for each in listed:
        stream.write(each.content() + bytes(_aligned(each.nbytes) - each.nbytes))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    """A value of GGUF's metadata, with its type before it."""
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    texts = isinstance(value[0], str)
    items = b"".join(_text(each) if texts else struct.pack("<i", each) for each in value)
    return struct.pack("<IIQ", 9, 8 if texts else 5, len(value)) + items


def quantize(source: Path, result: Path, kind: str, pure: bool) -> None:
    """Have llama.cpp quantize a GGUF file."""
    import ctypes

    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.pure = TYPES[kind], pure
    if llama_cpp.llama_model_quantize(str(source).encode(), str(result).encode(), ctypes.byref(settings)):
        raise SystemExit(f"llama.cpp could not quantize {source}")


def main() -> None:
    """Make one file."""
    parser = argparse.ArgumentParser(prog="bench gguf_file", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--type", choices=TYPES, default="Q4_0", help="(default: %(default)s)")
    parser.add_argument("--pure", action="store_true", help="the same type for all matrices, also for the head")
    arguments = parser.parse_args()
    unquantized = arguments.file.with_suffix(".bf16.gguf")
    with unquantized.open("wb") as stream:
        write(tensors(arguments.checkpoint), metadata(arguments.checkpoint), stream)
    note(f"quantizing {unquantized} ...")
    quantize(unquantized, arguments.file, arguments.type, arguments.pure)
    unquantized.unlink()


if __name__ == "__main__":
    main()
