"""Record: an immutable value with named fields.

msgspec declares such a class in a fortieth of the time of `dataclasses`, which writes and compiles Python for each one.
A conversion loads some 250 of them.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping
from typing import Any, dataclass_transform

from msgspec import Struct, StructMeta, field
from msgspec.structs import force_setattr, replace

__all__ = ["Record", "asdict", "field", "replace"]


class _RecordMeta(StructMeta, ABCMeta):
    """Lets a record have abstract methods."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Record(Struct, metaclass=_RecordMeta, frozen=True):
    """A base of immutable values. Records of one class with equal fields are equal, and hash alike.

    The annotated names of the class are its fields, as in a dataclass::

        class Range(Record):
            start: int
            stop: int | None = None
            names: Mapping[str, str] = field(default_factory=dict)

    `replace(record, start=2)` is a copy with other values. A class with a `functools.cached_property` is declared with
    `dict=True`.
    """

    def _assign(self, name: str, value: Any) -> None:
        """Set a field while the record is being made, in `__post_init__`."""
        force_setattr(self, name, value)


def asdict(record: Record) -> dict[str, Any]:
    """The fields of a record by name; also of the records in its mappings, lists and tuples."""
    return {name: _plain(getattr(record, name)) for name in record.__struct_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value
