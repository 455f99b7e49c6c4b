"""Write checkpoints with the shape of real models and random bf16 weights: for size, speed and memory, not for quality.

    python3 dev.py bench checkpoints SHAPE [FOLDER] [--layers N] [--sparse]

A shape is a `config.json` in `shapes/`; transformers says which tensors such a model is published with.
Weights go to disk a few megabytes at a time; with `--sparse` they are zeros that take no space on the disk.
The tokenizer is a byte-level BPE, trained on the standard library.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from measure import CACHE, note

if TYPE_CHECKING:
    import numpy as np
    from transformers import PretrainedConfig

SHARD_BYTES = 4 << 30
CHUNK_VALUES = 4 << 20
TOKENS = 4096
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m['role']}}\n{{m['content']}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


SHAPES = {path.stem: path for path in sorted((Path(__file__).parent / "shapes").glob("*.json"))}
"""The names of the shapes, each with its `config.json`."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a checkpoint: norms are ones, other tensors are random. Bytes are codes and scales of MXFP4."""

    name: str
    shape: tuple[int, ...]
    dtype: Literal["BF16", "U8"] = "BF16"

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * (2 if self.dtype == "BF16" else 1)


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


def configuration(name: str, layers: int | None = None) -> PretrainedConfig:
    """A shape's configuration with transformers' defaults, with fewer layers where `layers` says so."""
    from transformers import AutoConfig

    content = json.loads(SHAPES[name].read_text("utf-8"))
    if layers:
        content["num_hidden_layers"] = layers
    return AutoConfig.for_model(content.pop("model_type"), **content, bos_token_id=0, eos_token_id=0, dtype="bfloat16")


def write_checkpoint(config: PretrainedConfig, folder: Path, sparse: bool = False) -> None:
    """Write a whole checkpoint, or nothing: the folder gets its name when it is complete."""
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    config.save_pretrained(unfinished)
    _write_json(unfinished / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0})
    write_tokenizer(unfinished)
    write_weights(tensors(config), unfinished, sparse)
    unfinished.rename(folder)


def tensors(config: PretrainedConfig) -> list[Tensor]:
    """The tensors that a model of this configuration is published with, layer by layer."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.core_model_loading import revert_weight_conversion

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    named = {name: value for name, value in model.state_dict().items() if name not in model.all_tied_weights_keys}
    published = revert_weight_conversion(model, named)
    every = [Tensor(name, tuple(published[name].shape)) for name in sorted(published, key=_numbers_as_numbers)]
    if getattr(config, "quantization_config", {}).get("quant_method") == "mxfp4":
        return [stored for tensor in every for stored in _mxfp4(tensor)]
    return every


def _mxfp4(tensor: Tensor) -> Iterator[Tensor]:
    """What gpt-oss is published with: experts as codes and scales of blocks of 32 inputs, two codes in a byte."""
    if re.search(r"\.experts\.\w+_proj$", tensor.name):
        experts, inputs, outputs = tensor.shape
        yield Tensor(f"{tensor.name}_blocks", (experts, outputs, inputs // 32, 16), "U8")
        yield Tensor(f"{tensor.name}_scales", (experts, outputs, inputs // 32), "U8")
    else:
        yield tensor


def _numbers_as_numbers(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"\.", name)]


def write_weights(every: Sequence[Tensor], folder: Path, sparse: bool) -> None:
    """Write the safetensors files, with an index when there are several. `sparse`: zeros, as a hole in each file."""
    import numpy as np

    generator = np.random.default_rng(0)
    shards = _shards(every)
    names = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        names.update({tensor.name: file for tensor in shard})
        with (folder / file).open("wb") as stream:
            stream.write(_header(shard))
            if sparse:
                stream.truncate(stream.tell() + sum(tensor.nbytes for tensor in shard))
                continue
            for tensor in shard:
                for chunk in _values(tensor, generator):
                    stream.write(chunk.data)
    if len(shards) > 1:
        total = sum(tensor.nbytes for shard in shards for tensor in shard)
        index = {"metadata": {"total_size": total}, "weight_map": names}
        _write_json(folder / "model.safetensors.index.json", index)


def _shards(every: Sequence[Tensor]) -> list[list[Tensor]]:
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
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
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
        if tensor.dtype == "U8":
            # As exponents, 112 to 119 are scales around a thousandth; as codes, any byte is valid.
            low, high = (112, 120) if tensor.name.endswith("_scales") else (0, 256)
            yield generator.integers(low, high, count, np.uint8)
        else:
            ones = "norm" in tensor.name
            values = (
                np.ones(count, np.float32) if ones else generator.standard_normal(count, np.float32) * np.float32(0.02)
            )
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
    parser = argparse.ArgumentParser(prog="bench checkpoints", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path, nargs="?", help="default: a folder in bench/.cache")
    parser.add_argument("--layers", type=int, help="fewer layers than the real model")
    parser.add_argument("--sparse", action="store_true", help="zeros that take no space on the disk; needs FOLDER")
    arguments = parser.parse_args()
    if arguments.folder is None and arguments.sparse:
        parser.error("--sparse needs FOLDER")
    if arguments.folder is None:
        print(cached(arguments.shape, arguments.layers))
        return
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} exists")
    write_checkpoint(configuration(arguments.shape, arguments.layers), arguments.folder, arguments.sparse)


if __name__ == "__main__":
    main()
