"""Graphs whose attention wants buffers of a window's length as caches, as onnxruntime-genai makes them.

A session here begins with empty caches, which such attention refuses. The graph is opened with caches of all tokens.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from drupe_onnx.attention_caches import SHORT, keep_whole_caches

EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"
"""onnxruntime's session option for the folder of the weights' files, where a graph does not come from a file."""


def graph_with_whole_caches(path: Path) -> bytes | None:
    """The graph with caches that hold all tokens, or None where the file needs no change."""
    if not _names_short_caches(path):
        return None
    from drupe_onnx import ir

    model = ir.load(path)
    keep_whole_caches(model.graph)
    graph: bytes = ir.to_proto(model).SerializeToString()
    return graph


def _names_short_caches(path: Path) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(SHORT.encode()) >= 0
