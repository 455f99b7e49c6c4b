"""Traits: named properties of a target that an operator table cannot express."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from drupe.api import PluginError

ACCURACY_LEVEL = "matmul_nbits_accuracy_level"
FAST_BLOCKS = "matmul_nbits_block_sizes"
DECODE_TIMES = "matmul_nbits_decode_times"
WHOLE_BLOCKS = "matmul_nbits_whole_blocks"
SEVERAL_BLOCKS = "qmoe_several_blocks"
COMPUTED_ONCE = "computes_constants_once"
CASTS_INSERTED = "casts_inserted"
IN_MEMORY = "values_in_memory"

TRAITS: Mapping[str, str] = {
    ACCURACY_LEVEL: "the accuracy_level with which MatMulNBits is fast, a number: 4 computes in int8",
    FAST_BLOCKS: "the block sizes for which MatMulNBits is fast, a list",
    DECODE_TIMES: 'picoseconds that MatMulNBits takes for each weight and token, by "bits/block size"',
    WHOLE_BLOCKS: "true where MatMulNBits takes only rows that are whole blocks",
    SEVERAL_BLOCKS: "true where QMoE takes zero points of 4 bits only for rows of several blocks",
    COMPUTED_ONCE: "true where nodes that read only constants run once, when a package is opened",
    CASTS_INSERTED: "element types that the runtime casts to another type by itself, each with that other type",
    IN_MEMORY: "true where values are in the processor's memory, so a graph's shapes may depend on values at no cost",
}
"""Every trait that drupe reads, with its meaning. A third party's own traits carry a prefix: "acme.tile_bytes"."""

_OWN = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+")


def refuse_unknown(names: Iterable[str]) -> None:
    """Raise PluginError for a trait that is not in TRAITS and has no prefix: no code would read it."""
    for name in names:
        if name in TRAITS or _OWN.fullmatch(name):
            continue
        close = difflib.get_close_matches(name, TRAITS, 1, 0.6)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(TRAITS)}"
        raise PluginError(
            f"unknown trait '{name}'; {hint}", cure="give a trait of your own a prefix, such as 'acme.tile_bytes'"
        )
