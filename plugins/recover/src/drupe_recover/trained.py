"""What is trained: scales of quantized matrices and weights of norms, as factors of what they were.

Levels and zero points stay. Values are stored in the types that they have, so the bytes of the package do not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from drupe_blockquant.torch_products import Levels, unpacked
from drupe_files import disk_errors
from drupe_onnx import ExternalTensor, Files, LazyWeight, expression_of, ir

Tensor: TypeAlias = Any  # of torch, which linters do not see
MULTIPLES = 255
"""The largest multiple of a row's unit, where scales have two levels."""
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
NORMS = {
    "SimplifiedLayerNormalization": (1,), "LayerNormalization": (1, 2),
    "SkipSimplifiedLayerNormalization": (2,), "SkipLayerNormalization": (2, 3),
}  # fmt: skip
"""Operators that are norms, and the inputs that hold their weights and biases."""


Rows = NDArray[np.int64]
"""Numbers of rows along the first axis, ascending: of experts, or of tokens in a vocabulary."""
_BAND = 4 << 20  # bytes of a tensor that are read at a time


def array_of(value: ir.Value, rows: Rows | None = None) -> NDArray[Any]:
    """The values of an initializer, or some rows of it."""
    expression = expression_of(value)
    assert expression is not None
    with Files() as files:
        if rows is None:
            return np.array(expression.value(files))
        found: NDArray[Any] = np.empty((len(rows), *expression.shape[1:]), expression.dtype.numpy())
        step = max(1, _BAND // max(1, expression.row_size * found.itemsize))
        for start in range(int(rows[0]), int(rows[-1]) + 1, step):
            first, last = np.searchsorted(rows, (start, start + step))
            stop = min(start + step, int(rows[-1]) + 1)
            if first < last:
                found[first:last] = expression.rows(start, stop, files)[rows[first:last] - start]
        return found


def floats_of(value: ir.Value, device: torch.device, rows: Rows | None = None) -> Tensor:
    return torch.from_numpy(array_of(value, rows).astype(np.float32)).to(device)


@dataclass
class Values:
    """Floats that a node reads: an initializer, or the multiples of a unit for each row, which are two of them.

    stored: the initializers. rows: which of their rows these are; None for all. first: the floats before training.
    change: what is trained, 0 where nothing has changed yet; a value becomes `first + change * size`. of_rows: the
    relative change of each row's unit.
    """

    stored: tuple[ir.Value, ...]
    first: Tensor
    size: Tensor
    change: Tensor
    of_rows: Tensor | None = None
    units: Tensor | None = None
    multiples: Tensor | None = None
    rows: Rows | None = None

    @classmethod
    def of_scales(cls, stored: tuple[ir.Value, ...], device: torch.device, rows: Rows | None = None) -> Values:
        """Scales, each of which is changed relative to itself."""
        if len(stored) == 1:
            first = floats_of(stored[0], device, rows)
            return cls(stored, first, first.abs(), torch.zeros_like(first, requires_grad=True), rows=rows)
        multiples, units = (floats_of(each, device, rows) for each in stored)
        changes = [torch.zeros_like(each, requires_grad=True) for each in (multiples, units)]
        first = multiples * units
        return cls(stored, first, first, changes[0], changes[1], units, multiples, rows)

    @classmethod
    def of_norm(cls, stored: ir.Value, device: torch.device) -> Values:
        """The weights of a norm, which are changed relative to their root mean square."""
        first = floats_of(stored, device)
        size = first.square().mean().sqrt().clamp(min=1e-3).expand_as(first)
        return cls((stored,), first, size, torch.zeros_like(first, requires_grad=True))

    @property
    def parameters(self) -> list[Tensor]:
        return [self.change] if self.of_rows is None else [self.change, self.of_rows]

    def now(self) -> Tensor:
        """The floats as they are now. Multiples are rounded, and their gradients pass through that."""
        if self.units is None or self.multiples is None or self.of_rows is None:
            return self.first + self.change * self.size
        multiples = self.multiples * (1 + self.change)
        rounded = _whole(multiples.detach())
        return (multiples + (rounded - multiples).detach()) * (self.units * (1 + self.of_rows))

    def reset(self, values: Sequence[Tensor]) -> None:
        """Take earlier values of the parameters."""
        with torch.no_grad():
            for each, value in zip(self.parameters, values, strict=True):
                each.copy_(value)

    def settled(self) -> tuple[Tensor, list[NDArray[Any]]]:
        """The floats as they will be read from the package, and the arrays that store them."""
        with torch.no_grad():
            if self.units is None or self.multiples is None or self.of_rows is None:
                array = _as_stored(self.now(), self.stored[0])
                return torch.from_numpy(array.astype(np.float32)).to(self.first.device), [array]
            units = _as_stored(self.units * (1 + self.of_rows), self.stored[1])
            exact = torch.from_numpy(units.astype(np.float32)).to(self.first.device)
            multiples = _whole(self.multiples * (1 + self.change))
            return multiples * exact, [multiples.cpu().numpy().astype(np.uint8), units]


def _whole(multiples: Tensor) -> Tensor:
    """Multiples of a unit as whole numbers: those of blocks of zeros stay 0, others are 1 at least."""
    return torch.where(multiples > 0, multiples.round().clamp(1, MULTIPLES), torch.zeros_like(multiples))


def _as_stored(values: Tensor, stored: ir.Value) -> NDArray[Any]:
    assert stored.dtype is not None
    array: NDArray[Any] = values.detach().cpu().numpy().astype(stored.dtype.numpy())
    return array


def levels_of(node: ir.Node, device: torch.device, rows: Rows | None = None) -> Levels:
    """The levels and zero points of a quantized matrix, or of some rows of it."""
    packed, zeros = node.inputs[1], node.inputs[3] if len(node.inputs) > 3 else None
    assert packed is not None
    bits, columns = node.attributes["bits"].as_int(), node.attributes["K"].as_int()
    levels = torch.from_numpy(array_of(packed, rows)).to(device)
    points = None if zeros is None else _by_rows(array_of(zeros), packed, rows)
    return levels_with(levels, points, bits, columns)


def _by_rows(zero_points: NDArray[Any], packed: ir.Value, rows: Rows | None) -> NDArray[Any]:
    """Zero points, or those of some rows: they may lie in one row."""
    assert packed.shape is not None
    apart = zero_points.reshape(packed.shape.numpy()[0], -1)
    return apart if rows is None else apart[rows]


def levels_with(packed: Tensor, zero_points: NDArray[Any] | None, bits: int, columns: int) -> Levels:
    """Packed levels [N, blocks, bytes], and their zero points as they are stored: packed, or one value for a block."""
    if zero_points is None:
        return Levels(packed, None, bits, columns)
    points = torch.from_numpy(np.ascontiguousarray(zero_points)).to(packed.device).reshape(len(packed), -1)
    if points.dtype == torch.uint8:
        points = unpacked(points, bits)[:, : packed.shape[1]]
    return Levels(packed, points.float().reshape(packed.shape[:2]), bits, columns)


def scales_behind(value: ir.Value | None) -> tuple[ir.Value, ...] | None:
    """The initializers of a node's scales: one, or multiples and units; None where they are made in another way."""
    if value is None:
        return None
    if value.is_initializer():
        return (value,) if value.dtype in FLOATS else None
    node = value.producer()
    if node is None:
        return None
    if node.op_type == "Cast":
        source = node.inputs[0]
        return (source,) if source is not None and source.is_initializer() and source.dtype in FLOATS else None
    if node.op_type != "Mul":
        return None
    sources = [_stored(each) for each in node.inputs]
    multiples, units = sources if len(sources) == 2 else (None, None)
    if multiples is None or units is None or multiples.dtype != ir.DataType.UINT8:
        return None
    return multiples, units


def _stored(value: ir.Value | None) -> ir.Value | None:
    """The initializer of a value, also behind a Cast."""
    node = value.producer() if value is not None else None
    found = node.inputs[0] if node is not None and node.op_type == "Cast" else value
    return found if found is not None and found.is_initializer() else None


def read_once(value: ir.Value) -> bool:
    """Whether one node alone computes from an initializer, maybe through nodes that compute from constants."""
    users = list(value.uses())
    while len(users) == 1 and users[0].node.op_type in ("Cast", "Mul") and len(users[0].node.outputs) == 1:
        if any(each is not None and _stored(each) is None for each in users[0].node.inputs):
            break
        users = list(users[0].node.outputs[0].uses())
    return len(users) == 1 and not value.is_graph_output()


@dataclass
class Written:
    """A file for the values that one stage of training changes, one after another."""

    path: Path
    end: int = 0
    alignment: int = field(default=64, init=False)
    _starts: dict[ir.Value, int] = field(default_factory=dict, init=False)

    def keep(self, values: Values) -> None:
        """Store trained values as they are now."""
        for stored, array in zip(values.stored, values.settled()[1], strict=True):
            if values.rows is None:
                self._write(stored, array)
                continue
            if stored not in self._starts:
                self._write(stored, array_of(stored))
            assert stored.shape is not None
            shape, start = tuple(stored.shape.numpy()), self._starts[stored]
            with disk_errors(self.path):
                np.memmap(self.path, array.dtype, "r+", start, shape)[values.rows] = array

    def _write(self, stored: ir.Value, array: NDArray[Any]) -> None:
        """Put an array into the file, and let the initializer read it there."""
        assert stored.dtype is not None and stored.shape is not None
        start = -(-self.end // self.alignment) * self.alignment
        with disk_errors(self.path), self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.seek(start)
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        self._starts[stored], self.end = start, start + array.nbytes
        shape = tuple(stored.shape.numpy())
        stored.const_value = LazyWeight(stored.name, ExternalTensor(self.path, stored.dtype, shape, start))


def parameters_of(found: Sequence[Values]) -> Iterator[Tensor]:
    for each in found:
        yield from each.parameters
