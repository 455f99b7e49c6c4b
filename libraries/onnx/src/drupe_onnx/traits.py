"""Traits: named properties of a target that an operator table cannot express."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from drupe.api import PluginError

ACCURACY_LEVEL = "matmul_nbits_accuracy_level"
FAST_BLOCKS = "matmul_nbits_block_sizes"
DECODE_TIMES = "matmul_nbits_decode_times"
WHOLE_BLOCKS = "matmul_nbits_whole_blocks"
SEVERAL_BLOCKS = "qmoe_several_blocks"
COMPUTED_ONCE = "computes_constants_once"
CASTS_INSERTED = "casts_inserted"
IN_MEMORY = "values_in_memory"


class _Trait(NamedTuple):
    """What a trait means, and what it holds: in words, and as a question to a value."""

    meaning: str
    kind: str
    holds: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _are_whole(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_whole, values))


def _names_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(_is_whole(each) or isinstance(each, float) for each in values.values())


def _names_names(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(each, str) for each in values.values())


_FLAG = ("true or false", _is_flag)
TRAITS: Mapping[str, _Trait] = {
    ACCURACY_LEVEL: _Trait(
        "the accuracy_level with which MatMulNBits is fast, a number: 4 computes in int8", "a whole number", _is_whole
    ),
    FAST_BLOCKS: _Trait("the block sizes for which MatMulNBits is fast, a list", "a list of whole numbers", _are_whole),
    DECODE_TIMES: _Trait(
        'picoseconds that MatMulNBits takes for each weight and token, by "bits/block size"',
        "an object of numbers",
        _names_numbers,
    ),
    WHOLE_BLOCKS: _Trait("true where MatMulNBits takes only rows that are whole blocks", *_FLAG),
    SEVERAL_BLOCKS: _Trait("true where QMoE takes zero points of 4 bits only for rows of several blocks", *_FLAG),
    COMPUTED_ONCE: _Trait("true where nodes that read only constants run once, when a package is opened", *_FLAG),
    CASTS_INSERTED: _Trait(
        "element types that the runtime casts to another type by itself, each with that other type",
        "an object of names",
        _names_names,
    ),
    IN_MEMORY: _Trait(
        "true where values are in the processor's memory, so a graph's shapes may depend on values at no cost", *_FLAG
    ),
}
"""Every trait that drupe reads. A third party's own traits carry a prefix: "acme.tile_bytes"."""

_OWN = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+")


def refuse_wrong(traits: Mapping[str, Any]) -> None:
    """Raise PluginError for a trait that holds what it cannot, and for one that no code would read.

    That is a trait which is not in TRAITS and has no prefix.
    """
    for name, value in traits.items():
        if trait := TRAITS.get(name):
            if not trait.holds(value):
                what = f"the trait '{name}' is {value!r}, and {trait.kind} is wanted: {trait.meaning}"
                raise PluginError(what, cure="report it to those who made the operator table")
        elif not _OWN.fullmatch(name):
            close = difflib.get_close_matches(name, TRAITS, 1, 0.6)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(TRAITS)}"
            raise PluginError(
                f"unknown trait '{name}'; {hint}", cure="give a trait of your own a prefix, such as 'acme.tile_bytes'"
            )
