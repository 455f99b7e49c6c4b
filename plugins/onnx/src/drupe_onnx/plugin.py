"""What drupe-onnx adds to drupe: the model kind `onnx`, and finding models of that kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Model


@hookimpl
def drupe_model_kinds() -> list[Ref]:
    return [Ref("onnx", "drupe_onnx.kind:OnnxKind", "ONNX graphs with lazy weights, and the files beside them")]


@hookimpl
def drupe_resolve_model(reference: str, options: Mapping[str, Any]) -> Model | None:
    """A folder that holds model.onnx, or an .onnx file. Raises ModelError where that is no graph."""
    path = Path(reference)
    if not _is_ours(path):
        return None
    from drupe.api import Model
    from drupe_onnx.describing import facts_of, graph_files
    from drupe_onnx.outline import read_outline

    return Model("onnx", path, facts_of(path, [read_outline(graph) for graph in graph_files(path)]))


def _is_ours(path: Path) -> bool:
    """False for what is not there as well, and for what cannot be looked at."""
    try:
        graph = path / "model.onnx" if path.is_dir() else path
        return graph.suffix == ".onnx" and graph.is_file()
    except (OSError, ValueError):  # a name that is too long, a folder without permission, a NUL
        return False
