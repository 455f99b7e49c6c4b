"""The twin of a last-token graph that gives the logits of every token, over the same weights."""

from __future__ import annotations

import os
from pathlib import Path

from drupe.api import ONLY_PART, Model
from drupe_onnx import ir
from drupe_onnx.editing import remove_unused
from drupe_onnx.expressions.sources import ExternalTensor
from drupe_onnx.files import link_or_copy
from drupe_onnx.kind import OnnxKind, package_of
from drupe_onnx.layout import reference, serialized
from drupe_onnx.metadata import LAST_TOKEN, ROLE
from drupe_onnx.package import GRAPH, OnnxPackage, initializers_of
from drupe_onnx.package_folder import folder_of
from drupe_onnx.weights import expression_of

SUFFIX, WEIGHTS = ".onnx", ".weights"
"""Suffix for a graph's file that is used as the twin's data file, because it holds the weights."""


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
    remove_unused(twin)
    return twin


def write_twin(model: Model, folder: Path) -> Model:
    """Write the twin of a package's graph into `folder`: a small graph beside the package's own data, hard-linked.

    The model has to be on disk. If `folder` is on another disk than the package, the data is copied, because ONNX
    Runtime refuses symbolic links. The twin has no genai_config.json, so a runtime for bare graphs opens it.
    """
    model = OnnxKind().load(model)
    package = package_of(model)
    home = os.path.normpath(folder_of(model))
    twin = all_logits(package.component)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: list[ir.TensorProtocol | None] = []
    for value in initializers_of(twin):
        source = expression_of(value)
        if isinstance(source, ExternalTensor):
            name = source.path.relative_to(home).as_posix()
            name = f"{name}{WEIGHTS}" if source.path.suffix == SUFFIX else name
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if not (folder / name).exists():
                link_or_copy(source.path.resolve(), folder / name)  # resolved: a link to a symbolic link is symbolic
            tensors.append(reference(value, name, source.offset, source.nbytes))
        else:
            tensors.append(None)
    (folder / GRAPH).write_bytes(serialized(twin, tensors))
    facts = {**model.facts, "logits": "all", "packaged": "no"}
    return Model.single("onnx", folder, facts, OnnxPackage({ONLY_PART: twin}), model.task)


def _behind(value: ir.Value) -> list[ir.Value]:
    """`value` and all values that are computed from it."""
    seen: dict[int, ir.Value] = {}
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen[id(each)] = each
            waiting += [output for node in each.consumers() for output in node.outputs]
    return list(seen.values())
