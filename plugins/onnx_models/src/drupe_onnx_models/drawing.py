"""Random inputs that fit the element types and shapes of a graph, and the tables that it looks up in.

Sizes that vary are small, and one name stands for one size. A whole number that indexes a table stays below the table's
number of rows; any other is 0 or 1. Masks are ones.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError, Record, UsageError
from drupe_decoding.feeding import LENGTH, ROWS
from drupe_onnx.elements import ELEMENTS
from drupe_onnx.outline import Node, Outline, Port

SIZES = (8, 16, 32, 64, 224, 1)
"""Sizes to try for varying axes until the graph runs: some must be multiples, and images need more than text."""
BATCH = 1
TOKEN_AXES = ("seq", "length", "token")
"""What is in the name of an axis of tokens."""
FEW = 2
"""Other whole numbers are smaller than this."""
BYTE = 256
PASSING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that pass on the values of their first input."""
TABLES = frozenset({"Gather", "GatherBlockQuantized"})
STORED = PASSING | {"DequantizeLinear"}
_WHOLE = frozenset({"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"})
_FLOATS = frozenset({"float16", "float32", "float64"})

Arrays = Mapping[str, NDArray[Any]]


def attempts(outline: Outline, seed: int, sizes: Mapping[str, int] | None = None) -> Iterator[Arrays]:
    """Inputs that fit, for one choice of sizes after another; only one set where all sizes are fixed.

    sizes: of axes by their names, and of rows and tokens by the words of Task.samples.
    """
    varies = any(not isinstance(size, int) for port in outline.inputs for size in port.shape or (None,))
    for size in SIZES if varies else SIZES[:1]:
        yield draw(outline, seed, size, sizes)


def draw(
    outline: Outline, seed: int, size: int = SIZES[0], sizes: Mapping[str, int] | None = None
) -> dict[str, NDArray[Any]]:
    """An array for each input. size: of varying axes without one in `sizes`.

    Raises ModelError for an input whose type cannot be drawn.
    """
    rows = rows_of_tables(outline)
    return {port.name: _values(port, rows.get(port.name), seed, Sizes(size, sizes or {})) for port in outline.inputs}


def refuse_unknown_axes(sizes: Mapping[str, int], outlines: Iterable[Outline]) -> None:
    """Raise UsageError for the size of an axis that no graph has."""
    names = sorted({name for outline in outlines for port in outline.inputs for name in names_of_axes(port)})
    used = {key for name in names for key in (name, word_for(name))}
    for asked in sizes:
        if asked not in used:
            has = f"has {', '.join(names)}" if names else "has fixed sizes only"
            raise UsageError(
                f"the model has no axis that varies for the size '{asked}'; it {has}", cure="leave the size out"
            )


def names_of_axes(port: Port) -> list[str]:
    """The names of the axes of an input that vary, those in sums and products one by one."""
    return [
        name
        for declared in port.shape or ()
        if isinstance(declared, str)
        for name in re.split(r"\s*[+*]\s*", declared)
        if name and not name.isdigit()
    ]


def word_for(axis: str) -> str | None:
    """What Task.samples calls an axis of this name; None for one that has no word there."""
    name = axis.lower()
    if "batch" in name:
        return ROWS
    return LENGTH if "past" not in name and any(each in name for each in TOKEN_AXES) else None


class Sizes(Record):
    """The sizes of axes that vary. chosen: of those that neither `asked` nor BATCH decides."""

    chosen: int
    asked: Mapping[str, int]

    def __getitem__(self, axis: str) -> int:
        word = word_for(axis)
        return self.asked.get(axis, self.asked.get(word or "", BATCH if word == ROWS else self.chosen))


def _values(port: Port, rows: int | None, seed: int, sizes: Sizes) -> NDArray[Any]:
    element = ELEMENTS.get(port.element, ("no tensor", 0))[0]
    if element not in _WHOLE | _FLOATS | {"bool"}:
        raise ModelError(
            f"the input '{port.name}' has the type {element}, for which drupe cannot draw random values",
            cure="run the package in the program that it is made for",
        )
    shape = [_size(each, sizes) for each in port.shape or ()]
    random = np.random.default_rng([seed, zlib.crc32(port.name.encode())])
    mask = "mask" in port.name.lower()
    if mask:  # ones let everything through where the mask is a factor, and change nothing in softmax where it is added
        return np.ones(shape, element)
    if element in _FLOATS:
        return random.standard_normal(shape).astype(element)
    below = rows or (BYTE if element == "uint8" else FEW)
    below = min(below, np.iinfo(element).max) if element in _WHOLE else FEW
    return np.asarray(random.integers(0, below, shape)).astype(element)


def _size(declared: int | str | None, sizes: Sizes) -> int:
    """The size of an axis: a sum or product of names and numbers, such as "past_sequence_length + sequence_length"."""
    if isinstance(declared, int):
        return declared
    terms = re.split(r"\s*\+\s*", declared or "")
    if not all(re.fullmatch(r"[\w.:/-]+(\s*\*\s*[\w.:/-]+)*", term) for term in terms):
        return sizes.chosen
    return sum(int(np.prod([_factor(name, sizes) for name in re.split(r"\s*\*\s*", term)])) for term in terms)


def _factor(name: str, sizes: Sizes) -> int:
    return int(name) if name.isdigit() else sizes[name]


def rows_of_tables(outline: Outline) -> dict[str, int]:
    """For each input that indexes tables: the number of rows of the smallest such table."""
    tables = {weight.name: weight.shape for weight in outline.weights if weight.shape}
    origins = {port.name: port.name for port in outline.inputs}
    found: dict[str, int] = {}
    for node in outline.nodes:
        first, second = (*node.inputs, "", "")[:2]
        if node.operator in STORED and first in tables:
            tables |= dict.fromkeys(node.outputs, tables[first])
        if node.operator in PASSING and first in origins:
            origins |= dict.fromkeys(node.outputs, origins[first])
        if node.operator in TABLES and first in tables and second in origins:
            rows, name = _rows(node, tables[first]), origins[second]
            found[name] = min(found.get(name, rows), rows)
    return found


def _rows(node: Node, shape: tuple[int, ...]) -> int:
    axis = node.integers.get("axis", 0)
    return shape[axis - (axis >> 63 << 64)]  # an outline has numbers below 0 as protobuf does: very large
