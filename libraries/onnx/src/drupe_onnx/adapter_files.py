"""Adapter files of onnxruntime (.onnx_adapter): values for optional inputs of a graph, by name.

The format is a flatbuffer; its schema is onnxruntime/lora/adapter_format/adapter_schema.fbs. It is written here,
without onnxruntime, which would hold all matrices of an adapter in memory and need not be installed to make a package.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from drupe.api import ModelError, OutputError, Record
from drupe_files import disk_errors, unreadable
from drupe_onnx import ir
from drupe_onnx.expressions.expression import Expression
from drupe_onnx.expressions.sources import ExternalTensor
from drupe_onnx.files import Files

IDENTIFIER = b"TORT"
FORMAT, VERSION = 1, 1
ALIGNMENT = 64
"""Matrices begin at multiples of this, so that a runtime can map them."""
LARGEST = (1 << 31) - 1
"""Bytes of a flatbuffer, whose offsets have 32 bits."""
_TABLES = struct.pack("<6H", 12, 20, 4, 8, 12, 16)
"""Both tables, of the adapter and of a parameter: four fields of 4 bytes behind the place of this description."""
_FIELDS = 4
_NAME, _DIMS, _TYPE, _DATA = range(_FIELDS)
_PARAMETERS = 3


class _Placed(Record):
    """A matrix with the places of its parts in the file."""

    name: bytes
    tensor: Expression
    table: int
    text: int
    dims: int
    data: int


def write_adapter(path: Path, tensors: Mapping[str, Expression]) -> None:
    """Write the file of an adapter, matrix by matrix. Raises OutputError for one that the format has no room for."""
    placed, size = _arranged(tensors)
    if size > LARGEST:
        raise OutputError(
            f"the adapter would take {size:,} bytes, and a file of this format holds at most {LARGEST:,}",
            where=path,
            cure="train with a smaller rank, or on fewer modules",
        )
    with disk_errors(path), path.open("wb") as file, Files() as files:
        _write_head(file, placed)
        for each in placed:
            _write_parameter(file, each)
        for each in placed:
            _pad(file, each.data)
            file.write(struct.pack("<I", each.tensor.nbytes))
            file.write(each.tensor.value(files).tobytes())


def _arranged(tensors: Mapping[str, Expression]) -> tuple[list[_Placed], int]:
    """The places of all parts, and the length of the file."""
    at = _parameters_at() + 4 + 4 * len(tensors)
    places = []
    for name, tensor in tensors.items():
        text = name.encode()
        table = at
        at = table + 4 * (_FIELDS + 1)
        beginning = at
        at = _multiple(beginning + 4 + len(text) + 1, 4)
        dims = _multiple(at + 4, 8) - 4
        at = dims + 4 + 8 * len(tensor.shape)
        places.append((text, tensor, table, beginning, dims))
    placed = []
    for text, tensor, table, beginning, dims in places:
        data = _multiple(at + 4, ALIGNMENT) - 4
        at = data + 4 + tensor.nbytes
        placed.append(_Placed(text, tensor, table, beginning, dims, data))
    return placed, at


def _multiple(at: int, of: int) -> int:
    return -(-at // of) * of


def _table_at() -> int:
    """The adapter's table stands behind the head and the description of tables."""
    return 8 + len(_TABLES)


def _parameters_at() -> int:
    return _table_at() + 4 * (_FIELDS + 1)


def _write_head(file: BinaryIO, placed: list[_Placed]) -> None:
    table, parameters = _table_at(), _parameters_at()
    file.write(struct.pack("<I4s", table, IDENTIFIER) + _TABLES)
    to_parameters = parameters - (table + 4 * _FIELDS)
    file.write(struct.pack("<iiiiI", table - 8, FORMAT, VERSION, VERSION, to_parameters))
    file.write(struct.pack("<I", len(placed)))
    for number, each in enumerate(placed):
        file.write(struct.pack("<I", each.table - (parameters + 4 + 4 * number)))


def _write_parameter(file: BinaryIO, each: _Placed) -> None:
    at = [each.table + 4 * (1 + field) for field in range(_FIELDS)]
    element = each.tensor.dtype.value
    _pad(file, each.table)
    fields = (each.text - at[_NAME], each.dims - at[_DIMS], element, each.data - at[_DATA])
    file.write(struct.pack("<iIIiI", each.table - 8, *fields))
    file.write(struct.pack("<I", len(each.name)) + each.name + b"\0")
    _pad(file, each.dims)
    shape = each.tensor.shape
    file.write(struct.pack(f"<I{len(shape)}q", len(shape), *shape))


def _pad(file: BinaryIO, at: int) -> None:
    file.write(bytes(at - file.tell()))


def read_adapter(path: Path) -> dict[str, ExternalTensor]:
    """The matrices of an adapter's file, by name; their values are not read. Raises ModelError for another file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
            if held[4:8] != IDENTIFIER:
                raise ValueError
            return dict(_parameters(held, path))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, struct.error) as error:
        raise ModelError(
            f"'{path.name}' is not an adapter file of onnxruntime, or is damaged",
            where=path,
            cure="make it again with drupe convert-adapters",
        ) from error


def _parameters(held: mmap.mmap, path: Path) -> Iterator[tuple[str, ExternalTensor]]:
    vector = _referred(held, _field(held, _number(held, 0), _PARAMETERS))
    for number in range(_number(held, vector)):
        table = _referred(held, vector + 4 + 4 * number)
        text = _referred(held, _field(held, table, _NAME))
        name = held[text + 4 : text + 4 + _number(held, text)].decode()
        dims = _referred(held, _field(held, table, _DIMS))
        shape = struct.unpack_from(f"<{_number(held, dims)}q", held, dims + 4)
        element = ir.DataType(_number(held, _field(held, table, _TYPE)))
        data = _referred(held, _field(held, table, _DATA))
        tensor = ExternalTensor(path, element, tuple(shape), data + 4)
        if tensor.nbytes != _number(held, data) or data + 4 + tensor.nbytes > len(held):
            raise ValueError
        yield name, tensor


def _number(held: mmap.mmap, at: int) -> int:
    found: int = struct.unpack_from("<I", held, at)[0]
    return found


def _referred(held: mmap.mmap, at: int) -> int:
    """Where the reference at this place leads."""
    return at + _number(held, at)


def _field(held: mmap.mmap, table: int, field: int) -> int:
    """The place of a table's field. Raises ValueError for a table without it."""
    description = table - struct.unpack_from("<i", held, table)[0]
    size = struct.unpack_from("<H", held, description)[0]
    place = 4 + 2 * field
    offset = struct.unpack_from("<H", held, description + place)[0] if place < size else 0
    if not offset:
        raise ValueError
    return int(table + offset)
