"""What a checkpoint's folder stores, for checking what a conversion has read of it.

This reader goes by what transformers loads, and shares no code with the readers that conversions use: a mistake there
must not hide itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
PIECE = 8 << 20  # bytes that are compared at a time


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies. element: its type as safetensors spells it."""

    name: str
    element: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    nbytes: int

    def equals(self, other: StoredTensor) -> bool:
        """Whether both hold the same bytes as the same numbers."""
        if (self.element, self.shape) != (other.element, other.shape):
            return False
        with self.path.open("rb") as mine, other.path.open("rb") as theirs:
            mine.seek(self.offset)
            theirs.seek(other.offset)
            left = self.nbytes
            while left:
                size = min(PIECE, left)
                if mine.read(size) != theirs.read(size):
                    return False
                left -= size
        return True

    def is_zero(self) -> bool:
        """Whether all its bytes are zero."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return not any(file.read(self.nbytes))


def stored_tensors(folder: Path) -> Mapping[str, StoredTensor] | None:
    """The tensors that transformers loads from a folder, by name; None where it would find no safetensors files.

    A file model.safetensors counts before an index. All tensors of a shard count, whether the index lists them or not.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        files = [single]
    elif index.is_file():
        files = [folder / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
    else:
        return None
    found: dict[str, StoredTensor] = {}
    for path in files:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            found[name] = StoredTensor(
                name, entry["dtype"], tuple(entry["shape"]), path, 8 + length + start, stop - start
            )
    return found
