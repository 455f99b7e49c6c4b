"""Producers: several tensors from one walk over rows, and the expressions that are their outputs."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from drupe.api import Progress, Record
from drupe_onnx import ir
from drupe_onnx.expressions.expression import Access, Expression, Shape, expressions_in
from drupe_onnx.files import Files


class OutputSpec(Record):
    """One result of a producer; `shape[0]` is the producer's `rows`."""

    name: str
    shape: Shape
    dtype: ir.DataType


class Producer(Record):
    """Several tensors from one walk over rows, such as packed weights, scales and zero points.

    A frozen dataclass, serialised by its fields and found again by import path. Each output has `rows` rows.
    """

    if TYPE_CHECKING:

        @property
        def outputs(self) -> tuple[OutputSpec, ...]: ...

        @property
        def rows(self) -> int: ...

        @property
        def label(self) -> str:
            """The work and its object, for errors and progress: "quantize model.layers.0.mlp.up_proj.weight"."""

    def prepare(self, progress: Progress) -> None:
        """Prepare what `produce` needs, such as compiled code. `progress` reports work that takes seconds."""

    @abstractmethod
    def produce(self, start: int, stop: int, files: Files) -> tuple[NDArray[Any], ...]:
        """Rows [start, stop) of each output, contiguous; called from several threads at once."""

    @abstractmethod
    def working_bytes(self, rows: int) -> int:
        """The most bytes that are held at once while `rows` rows are produced, the results included."""

    @property
    def inputs(self) -> tuple[Expression, ...]:
        """The expressions that the producer reads: those among its fields."""
        return tuple(expressions_in(self))


class Produced(Expression):
    """One output of a producer. The writer makes all outputs of equal producers in one walk."""

    producer: Producer
    index: int

    @property
    def dtype(self) -> ir.DataType:
        return self.producer.outputs[self.index].dtype

    @property
    def shape(self) -> Shape:
        return self.producer.outputs[self.index].shape

    @property
    def inputs(self) -> tuple[Expression, ...]:
        return self.producer.inputs

    @property
    def access(self) -> Access:
        return Access.ROWS

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        return self.producer.produce(start, stop, files)[self.index]

    def working_bytes(self, rows: int) -> int:
        return self.producer.working_bytes(rows)
