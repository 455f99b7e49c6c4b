"""What drupe-onnx adds to drupe: the model kind `onnx`, and finding models of that kind."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Model

_QUANTIZED = (b"MatMulNBits", b"GatherBlockQuantized", b"QMoE")


@hookimpl
def drupe_model_kinds() -> list[Ref]:
    return [Ref("onnx", "drupe_onnx.kind:OnnxKind", "ONNX graphs with lazy weights, and the files beside them")]


@hookimpl
def drupe_resolve_model(reference: str, options: Mapping[str, Any]) -> Model | None:
    """A folder that holds model.onnx, or an .onnx file."""
    path = Path(reference)
    graph = path / "model.onnx" if path.is_dir() else path
    if graph.suffix != ".onnx" or not graph.is_file():
        return None
    from drupe.api import Model

    return Model("onnx", path, _facts(graph))


def _facts(graph: Path) -> dict[str, str]:
    """What a plan has to know, from the names that stand in the graph's bytes: parsing it takes half a second more."""
    with graph.open("rb") as file:
        if not graph.stat().st_size:
            return {}
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
            quantized = any(held.find(name) >= 0 for name in _QUANTIZED)
            last = held.find(b"last-token") >= 0
    return {
        "weights": "quantized" if quantized else "float",
        "logits": "last" if last else "all",
        "packaged": "yes" if (graph.parent / "genai_config.json").is_file() else "no",
    }
