"""Matrices of weights in a graph: where they are, what a target serves, and how they become blocks of n bits."""

from __future__ import annotations

from drupe_nbits.expressions import QuantizeBlocks, Weighted
from drupe_nbits.rewriting import ACCURACY_LEVEL, Rewriter, operator_use, remove_unused
from drupe_nbits.schemes import assign, assigned
from drupe_nbits.serving import block_sizes, refusal
from drupe_nbits.sites import EMBEDDING, HEAD, Site, find_sites, replace_rows, weigh

__all__ = [
    "ACCURACY_LEVEL",
    "EMBEDDING",
    "HEAD",
    "QuantizeBlocks",
    "Rewriter",
    "Site",
    "Weighted",
    "assign",
    "assigned",
    "block_sizes",
    "find_sites",
    "operator_use",
    "refusal",
    "remove_unused",
    "replace_rows",
    "weigh",
]
