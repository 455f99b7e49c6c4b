"""What safetensors files hold, told from their headers with the standard library alone: `drupe inspect` is in a hurry.

Only sums come of it. Who uses a tensor asks `Checkpoint.tensors()`, which checks everything and needs numpy.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000  # bytes, the format's own limit
NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8e4m3fn",
    "F8_E5M2": "float8e5m2", "F8_E8M0": "float8e8m0", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """elements: how many there are of each type. bytes: of all tensors."""

    elements: Counter[str]
    bytes: int


def summary(folder: Path) -> Summary | None:
    """The sums over a checkpoint's files; None for files that are not as they should be, as far as this sees it."""
    try:
        return _summary(_files(folder))
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.is_file():
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        if any(Path(name).name != name for name in names):
            raise ValueError("a shard outside the folder")
        return [folder / name for name in sorted(names)]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    (only,) = folder.glob("*.safetensors")
    return [only]


def _summary(files: list[Path]) -> Summary:
    elements: Counter[str] = Counter()
    size = 0
    for path in files:
        tensors, data = _header(path)
        for tensor in tensors:
            elements[NAMES[tensor["dtype"]]] += math.prod(tensor["shape"])
        held = sum(tensor["data_offsets"][1] - tensor["data_offsets"][0] for tensor in tensors)
        if held != data:
            raise ValueError(f"{path} has {data} bytes for tensors of {held}")
        size += held
    return Summary(elements, size)


def _header(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The header's entries, and how many bytes lie behind it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, LONGEST_HEADER):
            raise ValueError(f"{path} is cut short")
        header = json.loads(file.read(length))
    return [entry for name, entry in header.items() if name != "__metadata__"], size - 8 - length
