"""Typed: values that refuse a field of another type than they declare, in the line of the plugin that makes them."""

from __future__ import annotations

import builtins
import functools
import reprlib
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from drupe.values.record import Record


class Typed(Record):
    """A record that checks its fields. Raises TypeError where one is made with a field of another type."""

    def __post_init__(self) -> None:
        if wrong := misfit(self, type(self)):
            raise TypeError(f"{type(self).__name__} {wrong}")


def misfit(value: object, contract: type) -> str | None:
    """What is wrong with the first attribute of `value` that is not as a class declares it; None where all is well."""
    for name, hint in _declared(contract).items():
        if not hasattr(value, name):
            return f"has no {name}"
        if not _fits(getattr(value, name), hint):
            wanted = getattr(hint, "__name__", hint) if not get_args(hint) else hint
            return f"has {name} = {reprlib.repr(getattr(value, name))}, which is not of the type {wanted}"
    return None


@functools.cache
def _declared(contract: type) -> Mapping[str, Any]:
    hints = get_type_hints(contract, localns=vars(builtins))  # a field may be called as a type is
    return {name: get_args(hint)[0] if get_origin(hint) is ClassVar else hint for name, hint in hints.items()}


def _fits(value: object, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is type:
        return isinstance(value, type) and issubclass(value, inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(each, inner[0]) for each in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    return hint is Any or isinstance(value, origin or hint)
