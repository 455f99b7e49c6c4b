"""Write checkpoints with the shape of real models and random bf16 weights: for size, speed and memory, not for quality.

    python3 dev.py bench checkpoints SHAPE [FOLDER] [--layers N]

Weights go to disk a few megabytes at a time. The tokenizer is a byte-level BPE, trained on the standard library.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import CACHE, note

if TYPE_CHECKING:
    import numpy as np

SHARD_BYTES = 4 << 30
CHUNK_VALUES = 4 << 20
TOKENS = 4096
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m['role']}}\n{{m['content']}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder, as in its `config.json`."""

    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool


SHAPES = {
    "smollm2-135m": Shape("llama", 576, 30, 9, 3, 64, 1536, 49152, True),
    "qwen2.5-0.5b": Shape("qwen2", 896, 24, 14, 2, 64, 4864, 151936, True),
    "qwen3-0.6b": Shape("qwen3", 1024, 28, 16, 8, 128, 3072, 151936, True),
    "llama-3.2-1b": Shape("llama", 2048, 16, 32, 8, 64, 8192, 128256, True),
    "qwen3-4b": Shape("qwen3", 2560, 36, 32, 8, 128, 9728, 151936, True),
    "qwen3-8b": Shape("qwen3", 4096, 36, 32, 8, 128, 12288, 151936, False),
}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


@dataclass(frozen=True)
class Tensor:
    """A tensor of a checkpoint. Norms are ones, other tensors are random."""

    name: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes in bf16."""
        return 2 * math.prod(self.shape)


def cached(name: str, layers: int | None = None) -> Path:
    """The folder of a shape's checkpoint in the cache, made when it is not there.

    A process of its own makes it, so that its memory does not count as this process's (see `measure`).
    """
    folder = CACHE / "checkpoints" / (f"{name}-{layers}-layers" if layers else name)
    if not folder.exists():
        note(f"making {folder} ...")
        more = ["--layers", str(layers)] if layers else []
        subprocess.run([sys.executable, __file__, name, str(folder), *more], check=True)
    return folder


def write_checkpoint(shape: Shape, folder: Path) -> None:
    """Write a whole checkpoint, or nothing: the folder gets its name when it is complete."""
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _write_json(unfinished / "config.json", config(shape))
    _write_json(unfinished / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0})
    write_tokenizer(unfinished)
    write_weights(shape, unfinished)
    unfinished.rename(folder)


def config(shape: Shape) -> dict[str, Any]:
    """The checkpoint's `config.json`."""
    return {
        "architectures": [ARCHITECTURES[shape.model_type]],
        "model_type": shape.model_type,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "max_position_embeddings": 32768,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
        "attention_bias": False,
        "mlp_bias": False,
        "use_sliding_window": False,
    }


def tensors(shape: Shape) -> Iterator[Tensor]:
    """The checkpoint's tensors in the order of the file."""
    hidden, heads = shape.hidden, shape.heads * shape.head_dim
    yield Tensor("model.embed_tokens.weight", (shape.vocabulary, hidden))
    for layer in range(shape.layers):
        block = f"model.layers.{layer}"
        for name, rows in (
            ("q", heads),
            ("k", shape.kv_heads * shape.head_dim),
            ("v", shape.kv_heads * shape.head_dim),
        ):
            yield Tensor(f"{block}.self_attn.{name}_proj.weight", (rows, hidden))
            if shape.model_type == "qwen2":
                yield Tensor(f"{block}.self_attn.{name}_proj.bias", (rows,))
        yield Tensor(f"{block}.self_attn.o_proj.weight", (hidden, heads))
        if shape.model_type == "qwen3":
            yield Tensor(f"{block}.self_attn.q_norm.weight", (shape.head_dim,))
            yield Tensor(f"{block}.self_attn.k_norm.weight", (shape.head_dim,))
        yield Tensor(f"{block}.mlp.gate_proj.weight", (shape.intermediate, hidden))
        yield Tensor(f"{block}.mlp.up_proj.weight", (shape.intermediate, hidden))
        yield Tensor(f"{block}.mlp.down_proj.weight", (hidden, shape.intermediate))
        yield Tensor(f"{block}.input_layernorm.weight", (hidden,))
        yield Tensor(f"{block}.post_attention_layernorm.weight", (hidden,))
    yield Tensor("model.norm.weight", (hidden,))
    if not shape.tied:
        yield Tensor("lm_head.weight", (shape.vocabulary, hidden))


def write_weights(shape: Shape, folder: Path) -> None:
    """Write the safetensors files, with an index when there are several."""
    import numpy as np

    generator = np.random.default_rng(0)
    shards = _shards(tensors(shape))
    names = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        names.update({tensor.name: file for tensor in shard})
        with (folder / file).open("wb") as stream:
            stream.write(_header(shard))
            for tensor in shard:
                for chunk in _values(tensor, generator):
                    stream.write(chunk.data)
    if len(shards) > 1:
        total = sum(tensor.nbytes for shard in shards for tensor in shard)
        index = {"metadata": {"total_size": total}, "weight_map": names}
        _write_json(folder / "model.safetensors.index.json", index)


def _shards(every: Iterator[Tensor]) -> list[list[Tensor]]:
    shards: list[list[Tensor]] = [[]]
    for tensor in every:
        if shards[-1] and sum(other.nbytes for other in shards[-1]) + tensor.nbytes > SHARD_BYTES:
            shards.append([])
        shards[-1].append(tensor)
    return shards


def _header(shard: list[Tensor]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in shard:
        end = offset + tensor.nbytes
        entries[tensor.name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _values(tensor: Tensor, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """The tensor's values in chunks: bf16 as uint16, made by dropping the lower bits without rounding."""
    import numpy as np

    left = math.prod(tensor.shape)
    while left:
        count = min(left, CHUNK_VALUES)
        if "norm" in tensor.name:
            values = np.ones(count, np.float32)
        else:
            values = generator.standard_normal(count, dtype=np.float32) * np.float32(0.02)
        yield (values.view(np.uint32) >> 16).astype("<u2")
        left -= count


def write_tokenizer(folder: Path) -> None:
    """A small byte-level BPE tokenizer with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    tokenizer.train([str(path) for path in sources], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    end = SPECIAL[0]
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": end,
            "eos_token": end,
            "pad_token": end,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), "utf-8")


def main() -> None:
    """Make one checkpoint."""
    from dataclasses import replace

    parser = argparse.ArgumentParser(prog="bench checkpoints", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path, nargs="?", help="default: a folder in bench/.cache")
    parser.add_argument("--layers", type=int, help="fewer layers than the real model")
    arguments = parser.parse_args()
    if arguments.folder is None:
        print(cached(arguments.shape, arguments.layers))
        return
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} exists")
    shape = SHAPES[arguments.shape]
    write_checkpoint(replace(shape, layers=arguments.layers or shape.layers), arguments.folder)


if __name__ == "__main__":
    main()
