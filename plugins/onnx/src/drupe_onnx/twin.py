"""The twin of a last-token graph that gives the logits of every token, over the same weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from drupe.api import Model
from drupe_onnx import ir
from drupe_onnx.describing import GRAPH
from drupe_onnx.expressions import ExternalTensor
from drupe_onnx.kind import OnnxKind
from drupe_onnx.layout import reference, serialized
from drupe_onnx.package import LAST_TOKEN, ROLE, OnnxPackage, initializers_of
from drupe_onnx.weights import expression_of


def all_logits(model: ir.Model) -> ir.Model:
    """A copy of `model` without the nodes that drop all but the last token.

    Weights are shared with the original, so the twin is a small file beside the same data file.
    """
    twin = model.clone()
    graph = twin.graph
    dropping = [node for node in graph if node.metadata_props.get(ROLE) == LAST_TOKEN]
    for node in dropping:
        whole = node.inputs[0]
        assert whole is not None and whole.shape is not None
        sequence = whole.shape[1]
        for value in _behind(node.outputs[0]):
            if value.shape is not None and len(value.shape) == 3 and value.shape[1] == 1:
                value.shape = ir.Shape([value.shape[0], sequence, value.shape[2]])
        node.outputs[0].replace_all_uses_with(whole)
    for node in reversed(list(graph)):
        if not any(each.uses() or each.is_graph_output() for each in node.outputs):
            graph.remove(node, safe=True)
    return twin


def write_twin(model: Model, folder: Path) -> Model:
    """Write the twin of a package's "model" into `folder`: a small graph beside the package's own data, hard-linked.

    The model has to be on disk. On another disk than the package the data is copied: ONNX Runtime refuses symbolic
    links. There is no genai_config.json beside the twin, so that a runtime for bare graphs opens it.
    """
    model = OnnxKind().load(model)
    package = model.payload
    assert isinstance(package, OnnxPackage)
    home = os.path.normpath(model.location if model.location.is_dir() else model.location.parent)
    twin = all_logits(package.components["model"])
    folder.mkdir(parents=True, exist_ok=True)
    tensors: list[ir.TensorProtocol | None] = []
    for value in initializers_of(twin):
        source = expression_of(value)
        if isinstance(source, ExternalTensor):
            name = source.path.relative_to(home).as_posix()
            _link(source.path, folder / name)
            tensors.append(reference(value, name, source.offset, source.nbytes))
        else:
            tensors.append(None)
    (folder / GRAPH).write_bytes(serialized(twin, tensors))
    facts = {**model.facts, "logits": "all", "packaged": "no"}
    return Model("onnx", folder, facts, OnnxPackage({"model": twin}))


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; where the disk does not, copy it."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = source.resolve()  # a link to a link would be one too
    try:
        os.link(whole, target)
    except OSError:
        shutil.copyfile(whole, target)


def _behind(value: ir.Value) -> list[ir.Value]:
    """`value` and all that is computed from it."""
    seen: dict[int, ir.Value] = {}
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen[id(each)] = each
            waiting += [output for node in each.consumers() for output in node.outputs]
    return list(seen.values())
