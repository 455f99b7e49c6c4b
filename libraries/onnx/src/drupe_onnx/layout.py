"""Layout: where each weight of a graph lies in its data file, and the walks that produce the bytes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError, Record, replace
from drupe_onnx import ir, numeric
from drupe_onnx.distinct_weights import stored_as
from drupe_onnx.expressions.arranged import Concat, Reshape
from drupe_onnx.expressions.elementwise import Affine, Cast
from drupe_onnx.expressions.expression import Access, Expression
from drupe_onnx.expressions.origins import name_of, sources
from drupe_onnx.expressions.producers import Produced, Producer
from drupe_onnx.expressions.sources import Array, Source
from drupe_onnx.files import Files
from drupe_onnx.package import initializers_of
from drupe_onnx.weights import expression_of

INLINE = 1 << 10  # bytes: smaller weights are kept in the graph, where any tool's shape inference can read them
PAGE = 4096
LARGE = 1 << 20  # bytes: larger weights start on a page, so a runtime can map them directly
LINE = 64  # bytes: all other weights start on a cache line, which suits vector instructions

CHUNK = 4 << 20  # bytes held for one chunk of rows: small enough for the cache, large enough for fast reads
LONGEST_ROW = 1 << 20  # bytes: longer rows (the matrices of experts) are walked element by element


class Put(Protocol):
    """Writes an array's bytes at an offset of the data file; with a stride, its rows that many bytes apart."""

    def __call__(self, offset: int, values: NDArray[Any], stride: int = 0, /) -> None: ...


class Region(Record):
    """Bytes [offset, offset + nbytes) of a data file."""

    offset: int
    nbytes: int


class Walk(ABC):
    """A walk over rows or columns that fills one or several regions, chunk by chunk.

    maker: gives the values. label: names the result in errors. regions: filled by the walk, in the order of offsets.
    """

    maker: Expression | Producer
    label: str
    regions: tuple[Region, ...]
    length: int
    """How many steps the walk has; a chunk is a range of steps."""
    multiple = 1
    """The walk's unit: chunks begin at multiples of this number of steps."""
    results: tuple[int, ...] = (0,)
    """For each region, which result of the maker it holds."""

    @abstractmethod
    def working_bytes(self, steps: int) -> int:
        """The most bytes held while `steps` steps are made."""

    @abstractmethod
    def make(self, start: int, stop: int, files: Files, put: Put) -> None:
        """Make steps [start, stop) and write the results."""

    @abstractmethod
    def lowest(self, start: int) -> int:
        """The lowest offset that steps from `start` on write to."""

    @abstractmethod
    def preferred(self, most: int) -> int:
        """How many bytes a chunk should hold; `most` is the limit."""


class RowWalk(Walk):
    """Rows of one expression or of all outputs of a producer."""

    def __init__(
        self,
        maker: Expression | Producer,
        outputs: Sequence[tuple[int, ir.DataType, int]],
        regions: Sequence[Region],
    ) -> None:
        """outputs: for each region the index of the result, its element type, and the elements in a row."""
        self.maker = maker
        self.label = maker.label if isinstance(maker, Producer) else name_of(maker)
        self.length = maker.rows if isinstance(maker, Producer) else maker.row_count
        self.regions = tuple(regions)
        self.results = tuple(index for index, _, _ in outputs)
        self._outputs = tuple(outputs)
        bits = [dtype.bitwidth * size for _, dtype, size in outputs]
        self.multiple = max(8 // math.gcd(8, each) for each in bits)
        self._row_bits = bits

    def working_bytes(self, steps: int) -> int:
        return self.maker.working_bytes(steps)

    def make(self, start: int, stop: int, files: Files, put: Put) -> None:
        results = self._results(start, stop, files)
        for (index, dtype, size), region, bits in zip(self._outputs, self.regions, self._row_bits, strict=True):
            values = results[index]
            if values.size != (stop - start) * size or values.dtype != dtype.numpy():
                raise TypeError(
                    f"'{self.label}' gave {values.dtype} {values.shape} for {stop - start} rows of {size} {dtype.name}"
                )
            stored = numeric.packed(values, dtype.bitwidth) if dtype.bitwidth < 8 else values
            put(region.offset + start * bits // 8, stored)

    def _results(self, start: int, stop: int, files: Files) -> tuple[NDArray[Any], ...]:
        if isinstance(self.maker, Expression):
            return (self.maker.rows(start, stop, files),)
        results = self.maker.produce(start, stop, files)
        for values in results:
            if not numeric.all_finite(values):
                raise ModelError(
                    f"'{self.label}' gives NaN or Inf for rows {start} to {stop - 1}",
                    cure="check the source's weights for NaN, Inf or very large values",
                )
        return results

    def lowest(self, start: int) -> int:
        return self.regions[0].offset + start * self._row_bits[0] // 8

    def preferred(self, most: int) -> int:
        read = (self.maker,) if isinstance(self.maker, Expression) else self.maker.inputs
        return min(most, CHUNK) if all(each.access == Access.ROWS for each in read) else most


class ColumnWalk(Walk):
    """Columns of a matrix that is produced by columns: each chunk writes a piece of every row."""

    def __init__(self, matrix: Expression, region: Region) -> None:
        self.maker = self._matrix = matrix
        self.label = name_of(matrix)
        self.regions = (region,)
        self.length = matrix.shape[1]

    def working_bytes(self, steps: int) -> int:
        return self._matrix.column_bytes(steps)

    def make(self, start: int, stop: int, files: Files, put: Put) -> None:
        (region,) = self.regions
        values = self._matrix.columns(start, stop, files)
        put(region.offset + start * values.itemsize, values, self.length * values.itemsize)

    def lowest(self, start: int) -> int:
        return self.regions[0].offset

    def preferred(self, most: int) -> int:
        return most


class Placed(Record):
    """An initializer whose bytes are in the data file."""

    region: Region


class Inline(Record):
    """An initializer that is kept in the graph."""

    expression: Expression


class Layout:
    """Where the weights of one graph go.

    entries: for each initializer, in the order of `initializers_of`, where it is; None where it does not change.
    walks: the walks that fill the data file, in the order of its bytes. size: of the data file.
    """

    def __init__(self, model: ir.Model) -> None:
        self.size = 0
        self.walks: list[Walk] = []
        self._regions: dict[Expression, Region] = {}
        stored = [stored_as(expression_of(value)) for value in initializers_of(model)]
        self._wanted: dict[Producer, list[int]] = {}
        for expression in stored:
            if isinstance(expression, Produced):
                indices = self._wanted.setdefault(expression.producer, [])
                if expression.index not in indices:
                    indices.append(expression.index)
        self.entries = [self._place(expression) for expression in stored]

    @property
    def written(self) -> int:
        """Bytes that the walks write: the size without the gaps."""
        return sum(region.nbytes for region in self._regions.values())

    @property
    def producers(self) -> Collection[Producer]:
        """The producers, which make several weights at once."""
        return self._wanted

    def _place(self, expression: Expression | None) -> Placed | Inline | None:
        if expression is None:
            return None
        if expression.nbytes < INLINE and not _is_computed(expression):
            return Inline(expression)
        if expression not in self._regions:
            if isinstance(expression, Produced):
                self._add_producer(expression.producer)
            else:
                self._add(expression)
        return Placed(self._regions[expression])

    def _add(self, expression: Expression) -> None:
        region = self._regions[expression] = self._reserve(expression.nbytes)
        if not expression.size:
            return
        if expression.access == Access.TILES and expression.dtype.bitwidth >= 8 and len(expression.shape) == 2:
            self.walks.append(ColumnWalk(expression, region))
            return
        walked = _walkable(expression)
        self.walks.append(RowWalk(walked, [(0, walked.dtype, walked.row_size)], [region]))

    def _add_producer(self, producer: Producer) -> None:
        indices = self._wanted[producer]
        specs = [producer.outputs[index] for index in indices]
        for index, spec in zip(indices, specs, strict=True):
            if spec.shape[0] != producer.rows:
                raise ValueError(f"'{producer.label}' has {producer.rows} rows, but its '{spec.name}' is {spec.shape}")
            produced = Produced(producer, index)
            self._regions[produced] = self._reserve(produced.nbytes)
        regions = [self._regions[Produced(producer, index)] for index in indices]
        outputs = [(index, spec.dtype, math.prod(spec.shape[1:])) for index, spec in zip(indices, specs, strict=True)]
        self.walks.append(RowWalk(producer, outputs, regions))

    def _reserve(self, nbytes: int) -> Region:
        alignment = PAGE if nbytes >= LARGE else LINE
        start = -(-self.size // alignment) * alignment
        self.size = start + nbytes
        return Region(start, nbytes)


def _is_computed(expression: Expression) -> bool:
    return isinstance(expression, Produced) or any(_is_computed(each) for each in expression.inputs)


def _walkable(expression: Expression) -> Expression:
    """An expression for the same bytes, in rows of a good length."""
    if isinstance(expression, Source) and expression.dtype.bitwidth < 8:
        return replace(expression, dtype=ir.DataType.UINT8, shape=(expression.nbytes,))
    if expression.access == Access.ROWS and expression.held_bytes(1) > LONGEST_ROW:
        return _flat(expression) or expression
    return expression


def _flat(expression: Expression) -> Expression | None:
    """The same elements as one vector, for expressions whose elements each need one element of the inputs."""
    if isinstance(expression, Source) and expression.dtype.bitwidth >= 8:
        return replace(expression, shape=(expression.size,))
    if isinstance(expression, Array):
        return Array(expression.values.reshape(-1))
    if isinstance(expression, Reshape):
        return _flat(expression.source)
    if isinstance(expression, Concat):
        parts = [_flat(part) for part in expression.parts]
        return None if None in parts else Concat(tuple(part for part in parts if part is not None))
    numbers = not any(isinstance(each, Expression) for each in _factors(expression))
    if isinstance(expression, Cast | Affine) and numbers:
        source = _flat(expression.source)
        return source and replace(expression, source=source)
    return None


def _factors(expression: Expression) -> tuple[Any, ...]:
    return (expression.scale, expression.offset) if isinstance(expression, Affine) else ()


# Chunks


class Chunk(Record):
    """Steps [start, stop) of a walk. Making them holds at most `nbytes`."""

    walk: Walk
    start: int
    stop: int
    nbytes: int


def chunks(walks: Sequence[Walk], budget: int, threads: int) -> Iterator[Chunk]:
    """All walks cut into chunks, such that about two chunks for each thread fit into `budget` bytes."""
    for walk in walks:
        steps = _steps(walk, walk.preferred(budget // (2 * threads)))
        for start in range(0, walk.length, steps):
            stop = min(start + steps, walk.length)
            yield Chunk(walk, start, stop, walk.working_bytes(stop - start))


def _steps(walk: Walk, most: int) -> int:
    """How many steps fit into `most` bytes: a multiple of the walk's unit, at least one."""
    low, high = 1, max(1, -(-walk.length // walk.multiple))
    while low < high:
        middle = (low + high + 1) // 2
        if walk.working_bytes(min(middle * walk.multiple, walk.length)) <= most:
            low = middle
        else:
            high = middle - 1
    return low * walk.multiple


# The graph


def serialized(model: ir.Model, tensors: Sequence[ir.TensorProtocol | None]) -> bytes:
    """The graph with other tensors for its initializers, in the order of `initializers_of`; None keeps the tensor."""
    values = list(initializers_of(model))
    held = [value.const_value for value in values]
    try:
        for value, tensor in zip(values, tensors, strict=True):
            value.const_value = value.const_value if tensor is None else tensor
        return bytes(ir.to_proto(model).SerializeToString())
    finally:
        for value, tensor in zip(values, held, strict=True):
            value.const_value = tensor


def references(
    model: ir.Model, layout: Layout, data_name: str, *, values: bool = True
) -> list[ir.TensorProtocol | None]:
    """The tensors of the written graph: references into the data file, and small tensors in place.

    Without `values`, the small tensors are zeros, so no file is read; the graph's length is the same.
    """
    tensors: list[ir.TensorProtocol | None] = []
    with Files() as files:
        for value, entry in zip(initializers_of(model), layout.entries, strict=True):
            if isinstance(entry, Placed):
                tensors.append(reference(value, data_name, entry.region.offset, entry.region.nbytes))
            elif isinstance(entry, Inline):
                tensors.append(_tensor(value, entry.expression, files if values else None))
            else:
                tensors.append(None)
    return tensors


def reference(value: ir.Value, location: str, offset: int, nbytes: int) -> ir.ExternalTensor:
    """A tensor like that of `value`, with its bytes in a file."""
    tensor = value.const_value
    assert tensor is not None and value.name is not None
    shape = ir.Shape(tensor.shape.numpy())
    return ir.ExternalTensor(location, offset, nbytes, tensor.dtype, shape=shape, name=value.name)


def _tensor(value: ir.Value, expression: Expression, files: Files | None) -> ir.Tensor[Any]:
    tensor = value.const_value
    assert tensor is not None
    shape = tuple(tensor.shape.numpy())
    held = expression.value(files) if files else np.zeros(shape, tensor.dtype.numpy())
    return ir.Tensor(np.array(held).reshape(shape), dtype=tensor.dtype, name=value.name)


def distinct_sources(layout: Layout) -> set[Source]:
    """Each source that the walks read, once."""
    return {each for walk in layout.walks for each in sources(walk.maker) if isinstance(each, Source)}
