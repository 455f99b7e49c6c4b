"""Matrices of weights in a graph: where they are, what a target serves, and how they become blocks of n bits.

Each public name is loaded when it is first used: recipes of execution providers import `ladder`, and that is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drupe_nbits.expressions import QuantizeBlocks, Weighted
    from drupe_nbits.ladder import eight_bits, four_bits
    from drupe_nbits.rewriting import Rewriter, is_quantized, operator_use, remove_unused, replace_site
    from drupe_nbits.schemes import METHODS, assign, assigned, method_for
    from drupe_nbits.serving import block_sizes, candidates, decode_time, first_served, refusal, takes_two_levels
    from drupe_nbits.sites import EMBEDDING, HEAD, Site, find_sites, replace_rows, weigh

_HOMES = {
    "expressions": ("QuantizeBlocks", "Weighted"),
    "ladder": ("eight_bits", "four_bits"),
    "rewriting": ("Rewriter", "is_quantized", "operator_use", "remove_unused", "replace_site"),
    "schemes": ("METHODS", "assign", "assigned", "method_for"),
    "serving": ("block_sizes", "candidates", "decode_time", "first_served", "refusal", "takes_two_levels"),
    "sites": ("EMBEDDING", "HEAD", "Site", "find_sites", "replace_rows", "weigh"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "EMBEDDING",
    "HEAD",
    "METHODS",
    "QuantizeBlocks",
    "Rewriter",
    "Site",
    "Weighted",
    "assign",
    "assigned",
    "block_sizes",
    "candidates",
    "decode_time",
    "eight_bits",
    "find_sites",
    "first_served",
    "four_bits",
    "is_quantized",
    "method_for",
    "operator_use",
    "refusal",
    "remove_unused",
    "replace_rows",
    "replace_site",
    "takes_two_levels",
    "weigh",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"drupe_nbits has no '{name}'")
    return getattr(importlib.import_module(f"drupe_nbits.{_HOME_OF[name]}"), name)
