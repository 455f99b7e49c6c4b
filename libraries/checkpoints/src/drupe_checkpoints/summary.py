"""Sums over safetensors files, from their headers and with the standard library alone, so `drupe inspect` is fast.

The tensors themselves come from `Checkpoint.tensors()`, which checks everything and needs numpy.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import Record
from drupe_files import stays_inside
from drupe_packed.packing import Packing

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NOT_THE_MODEL = ("adapter_", "consolidated")
LONGEST_HEADER = 100_000_000  # bytes, the format's own limit
NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8e4m3fn",
    "F8_E5M2": "float8e5m2", "F8_E8M0": "float8e8m0", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


class Summary(Record):
    """elements: how many weights there are of each type, without the scales and zero points of packed weights.

    bytes: of all tensors.
    """

    elements: Counter[str]
    bytes: int


def summary(folder: Path, packing: Packing | None) -> Summary | None:
    """The sums over a checkpoint's files; None for files that are broken, as far as this simple reader notices."""
    try:
        return _summary(_files(folder), packing)
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None


def shards_of(folder: Path) -> set[str]:
    """The files that the folder's index names; empty where there is no index or it is broken."""
    try:
        return {str(name) for name in json.loads((folder / INDEX).read_bytes())["weight_map"].values()}
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return set()


def _files(folder: Path) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        names = shards_of(folder)
        if not names or not all(map(stays_inside, names)):
            raise ValueError("no index, or a shard outside the folder")
        return [folder / name for name in sorted(names)]
    (only,) = (path for path in folder.glob("*.safetensors") if not path.name.startswith(NOT_THE_MODEL))
    return [only]


def names_in(path: Path) -> list[str]:
    """The tensors of a file, by name; none of one that is missing or broken."""
    try:
        return list(_header(path)[0])
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return []


def stored_types(folder: Path) -> dict[str, str] | None:
    """The type of each tensor by its name; None for files that are missing or broken."""
    try:
        return {name: NAMES[tensor["dtype"]] for path in _files(folder) for name, tensor in _header(path)[0].items()}
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None


def _summary(files: list[Path], packing: Packing | None) -> Summary:
    """Of tensors with one name, the last file's counts."""
    known: dict[str, dict[str, Any]] = {}
    for path in files:
        tensors, data = _header(path)
        held = sum(map(_bytes, tensors.values()))
        if held != data:
            raise ValueError(f"{path} has {data} bytes of data, and its tensors need {held}")
        known |= tensors
    elements: Counter[str] = Counter()
    for name, tensor in known.items():
        elements += _weights(name, tensor, packing)
    return Summary(elements, sum(map(_bytes, known.values())))


def _bytes(tensor: Mapping[str, Any]) -> int:
    start, end = tensor["data_offsets"]
    return int(end - start)


def _weights(name: str, tensor: Mapping[str, Any], packing: Packing | None) -> Counter[str]:
    """How many weights a tensor holds, by their type."""
    stored, elements = NAMES[tensor["dtype"]], math.prod(tensor["shape"])
    if packing is not None and (rule := packing.packs(name, stored)):
        return Counter({f"int{rule.bits}": elements * packing.word // rule.bits})
    return Counter() if packing is not None and packing.is_beside(name) else Counter({stored: elements})


def _header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The header's entries, and the number of bytes after the header."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, LONGEST_HEADER):
            raise ValueError(f"{path} is cut short")
        header = json.loads(file.read(length))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}, size - 8 - length
