"""What is asked of a lazy package before it is saved: its fingerprint, what saving will take, what it would say."""

from __future__ import annotations

import functools
import hashlib
import json

from drupe.api import Context, Estimate, file_digest
from drupe_onnx import ir
from drupe_onnx.expressions import Producer, file_stamp, fingerprint, sources
from drupe_onnx.layout import Layout, distinct_sources, reference, references, serialized
from drupe_onnx.outline import Outline, outline_of
from drupe_onnx.package import OnnxPackage, initializers_of
from drupe_onnx.storage import stored_weights
from drupe_onnx.weights import expression_of
from drupe_onnx.writer import package_size, peak_bytes


def fingerprint_of(package: OnnxPackage, thorough: bool) -> str:
    """A digest of the graphs, of what the weights are made from, and of the files."""
    stamp = functools.cache(file_digest if thorough else file_stamp)
    digest = hashlib.sha256()
    for name, component in package.components.items():
        weights = [expression_of(value) for value in initializers_of(component)]
        digest.update(name.encode())
        digest.update(_without_weights(component))
        digest.update(json.dumps([weight and fingerprint(weight, stamp) for weight in weights]).encode())
    for name, content in sorted(package.files.items()):
        held = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else stamp(content)
        digest.update(json.dumps([name, held]).encode())
    return digest.hexdigest()


def _without_weights(model: ir.Model) -> bytes:
    """The graph alone, for a digest: of its weights, names, types and shapes."""
    values = list(initializers_of(model))
    return serialized(model, [reference(value, "", 0, 0) if expression_of(value) else None for value in values])


def estimate(package: OnnxPackage, context: Context) -> Estimate:
    """What saving will take."""
    layouts = {name: Layout(component) for name, component in package.components.items()}
    read = {each for layout in layouts.values() for each in distinct_sources(layout)}
    producers = {walk.maker for layout in layouts.values() for walk in layout.walks if isinstance(walk.maker, Producer)}
    return Estimate(
        output_bytes=package_size(package, layouts),
        read_bytes=sum(source.nbytes for source in read),
        weights_held_bytes=max(peak_bytes(layout, context) for layout in layouts.values()),
        work=sum(source.size for producer in producers for source in sources(producer)),
        weights=[row for component in package.components.values() for row in stored_weights(component.graph)],
    )


def outlines_of(package: OnnxPackage) -> dict[str, Outline]:
    """The outlines that the graphs will have when they are written."""
    return {
        name: outline_of(serialized(model, references(model, Layout(model), f"{name}.onnx.data", values=False)))
        for name, model in package.components.items()
    }
