"""GgufCheckpoint: a GGUF file in the place of a checkpoint's folder."""

from __future__ import annotations

import functools
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drupe.api import ModelError
from drupe_huggingface.checkpoint import Checkpoint
from drupe_huggingface.configuration import Configuration
from drupe_huggingface.gguf.header import AGAIN, Header, TensorInfo, read_header
from drupe_huggingface.gguf.settings import ROPE_FREQUENCIES, configuration, name_of
from drupe_huggingface.summary import Summary

if TYPE_CHECKING:
    from drupe_onnx import Expression


@dataclass(frozen=True)
class GgufCheckpoint(Checkpoint):
    """A GGUF file of a decoder. `folder` is where the file lies, and its tokenizer.json if it has one there."""

    path: Path = Path()

    @classmethod
    def open_file(cls, path: Path) -> GgufCheckpoint:
        """Read the header. Raises ModelError for what is no GGUF file, or of a model that is not read."""
        header = read_header(path)
        metadata = Configuration(path, header.metadata)
        config = configuration(metadata, header.tensors, _frequencies(path, header))
        return cls(path.parent, config, Configuration(path, {}), path=path)

    @functools.cached_property
    def _header(self) -> Header:
        return read_header(self.path)

    def package_files(self) -> Mapping[str, Path | bytes]:
        """The tokenizer's files: those beside the file, or what the file says of it; and the licence."""
        from drupe_huggingface.gguf.tokenizer import tokenizer_files

        if (self.folder / "tokenizer.json").is_file():
            return super().package_files()
        return tokenizer_files(Configuration(self.path, self._header.metadata))

    def refuse_incomplete(self) -> None:
        """The header was read when the file was opened; what is left is its tokenizer."""
        self.package_files()

    def summary(self) -> Summary:
        elements: Counter[str] = Counter()
        for info in self._header.tensors.values():
            elements[info.kind.name] += _size(info)
        return Summary(elements, sum(info.nbytes for info in self._header.tensors.values()))

    def tensors(self) -> Mapping[str, Expression]:
        """The file's tensors by transformers' names; those of Q4_0, Q4_1 and Q8_0 are packed matrices."""
        from drupe_packed.ggml import tensor

        found: dict[str, Expression] = {}
        for info in self._header.tensors.values():
            if info.name == ROPE_FREQUENCIES:
                continue  # config.json says it: see `configuration`
            held = tensor(self.path, info.name, info.kind, info.shape, info.offset)
            found[name_of(info.name)] = self._unpermuted(name_of(info.name), held)
        return found

    def _unpermuted(self, name: str, tensor: Expression) -> Expression:
        """llama.cpp rotates neighbouring rows of a head, transformers rows of its halves: back to these.

        Its converter reorders the rows of Llama's queries and keys for that, and of no other architecture's.
        """
        projection = name.rpartition(".")[0].rpartition(".")[2]
        if self.model_type != "llama" or projection not in ("q_proj", "k_proj"):
            return tensor
        from drupe_packed.ggml import unpermuted

        heads = self.config.integer("num_attention_heads" if projection == "q_proj" else "num_key_value_heads")
        if tensor.shape[0] % (2 * heads):
            raise ModelError(
                f"the tensor '{name}' has {tensor.shape[0]} rows for {heads} heads", where=self.path, cure=AGAIN
            )
        return unpermuted(tensor, heads)


def _frequencies(path: Path, header: Header) -> tuple[float, ...] | None:
    """What the file divides rotary frequencies by: a small tensor that belongs to the settings."""
    info = header.tensors.get(ROPE_FREQUENCIES)
    if info is None:
        return None
    if info.kind.name != "F32" or len(info.shape) != 1:
        raise ModelError(f"the tensor '{info.name}' is {info.kind.name} {list(info.shape)}", where=path, cure=AGAIN)
    with path.open("rb") as file:
        file.seek(info.offset)
        return struct.unpack(f"<{info.shape[0]}f", file.read(info.nbytes))


def _size(info: TensorInfo) -> int:
    return info.nbytes // info.kind.nbytes * info.kind.values
