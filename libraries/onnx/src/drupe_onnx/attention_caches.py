"""Caches of attention with a sliding window: whole ones in place of buffers as long as the window."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drupe_onnx._onnx_ir import ir

OPERATOR, SHORT = "GroupQueryAttention", "sliding_window_cache"


def keep_whole_caches(graph: ir.Graph) -> None:
    """Let attention with a sliding window keep all tokens in its cache.

    The result is the same, because tokens outside the window are masked.
    """
    for node in graph:
        if node.op_type == OPERATOR and SHORT in node.attributes:
            del node.attributes[SHORT]
