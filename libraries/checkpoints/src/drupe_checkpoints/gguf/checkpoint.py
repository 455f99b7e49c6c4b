"""GgufCheckpoint: a GGUF file instead of a checkpoint's folder."""

from __future__ import annotations

import functools
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from drupe.api import ModelError, counted
from drupe_checkpoints.checkpoint import Checkpoint
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.gguf.header import AGAIN, Header, TensorInfo, read_header
from drupe_checkpoints.gguf.settings import ROPE_FREQUENCIES, configuration, name_of
from drupe_checkpoints.summary import Summary

if TYPE_CHECKING:
    from drupe_checkpoints.tokenizer.resolving import ResolvedTokenizer
    from drupe_onnx import Expression


class GgufCheckpoint(Checkpoint, dict=True):
    """A GGUF file of a decoder. `folder` holds the file, and possibly a tokenizer.json."""

    path: Path = Path()

    @classmethod
    def open_file(cls, path: Path) -> GgufCheckpoint:
        """Read the header. Raises ModelError for a file that is not GGUF, or of a model that is not supported."""
        header = read_header(path)
        metadata = Configuration(path, header.metadata)
        config = configuration(metadata, header.tensors, _frequencies(path, header))
        return cls(path.parent, config, config, path=path)

    @functools.cached_property
    def _header(self) -> Header:
        return read_header(self.path)

    @property
    def packing(self) -> None:
        """None: each tensor of a GGUF file says itself how it is packed."""

    @property
    def is_packed(self) -> bool:
        return any(info.kind.values > 1 for info in self._header.tensors.values())

    def package_files(self) -> Mapping[str, Path | bytes]:
        """The tokenizer's files, taken from beside the file or made from its metadata; and the licence."""
        return super().package_files() if self._has_tokenizer_beside else self._tokenizer_inside

    @functools.cached_property
    def tokenizer(self) -> ResolvedTokenizer:
        """The tokenizer.json beside the file, or the one made from its metadata. Raises ModelError."""
        from drupe_checkpoints.tokenizer.resolving import ResolvedTokenizer, resolve
        from drupe_checkpoints.tokenizer.settings import TOKENIZER

        if self._has_tokenizer_beside:
            return resolve(self.folder, self.config.entries)
        return ResolvedTokenizer(self._tokenizer_inside[TOKENIZER])

    @property
    def _has_tokenizer_beside(self) -> bool:
        return (self.folder / "tokenizer.json").is_file()

    @functools.cached_property
    def _tokenizer_inside(self) -> Mapping[str, bytes]:
        from drupe_checkpoints.gguf.tokenizer import tokenizer_files

        return tokenizer_files(Configuration(self.path, self._header.metadata))

    def refuse_incomplete(self) -> None:
        """Check the tokenizer, and that adapters fit. The header was checked when the file was opened."""
        if self.adapters or self.switched:
            self.tensors()
        self.package_files()

    def summary(self) -> Summary:
        elements: Counter[str] = Counter()
        for info in self._header.tensors.values():
            elements[info.kind.name] += _size(info)
        return Summary(elements, sum(info.nbytes for info in self._header.tensors.values()))

    def stored(self) -> Mapping[str, Expression]:
        """The file's tensors by transformers' names; those of Q4_0, Q4_1 and Q8_0 are packed matrices."""
        from drupe_packed.ggml import tensor

        found: dict[str, Expression] = {}
        for info in self._header.tensors.values():
            if info.name == ROPE_FREQUENCIES:
                continue  # it becomes a setting of config.json: see `configuration`
            held = tensor(self.path, info.name, info.kind, info.shape, info.offset)
            found[name_of(info.name)] = self._unpermuted(name_of(info.name), held)
        return found

    def _unpermuted(self, name: str, tensor: Expression) -> Expression:
        """A tensor with its rows in transformers' order.

        llama.cpp rotates neighbouring rows of a head; transformers rotates rows of its first half with rows of its
        second. llama.cpp's converter therefore reorders the rows of queries and keys, but only for Llama.
        """
        projection = name.rpartition(".")[0].rpartition(".")[2]
        if self.model_type != "llama" or projection not in ("q_proj", "k_proj"):
            return tensor
        from drupe_packed.ggml import unpermuted

        heads = self.config.integer("num_attention_heads" if projection == "q_proj" else "num_key_value_heads")
        if tensor.shape[0] % (2 * heads):
            raise ModelError(
                f"the tensor '{name}' has {counted(tensor.shape[0], 'row')} for {counted(heads, 'head')}",
                where=self.path,
                cure=AGAIN,
            )
        return unpermuted(tensor, heads)


def _frequencies(path: Path, header: Header) -> tuple[float, ...] | None:
    """The factors that rotary frequencies are divided by: a small tensor that belongs to the settings."""
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
