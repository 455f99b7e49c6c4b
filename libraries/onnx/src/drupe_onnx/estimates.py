"""Estimates for a package that is not saved yet: the cost of saving it, and the outlines of its graphs."""

from __future__ import annotations

from drupe.api import Context, Estimate
from drupe_onnx.expressions.origins import sources
from drupe_onnx.expressions.producers import Producer
from drupe_onnx.layout import Layout, distinct_sources, references, serialized
from drupe_onnx.outline import Outline, outline_of
from drupe_onnx.package import OnnxPackage
from drupe_onnx.stored_weights import stored_weights
from drupe_onnx.writer import data_name, package_size, peak_bytes


def estimate(package: OnnxPackage, context: Context) -> Estimate:
    """The cost of saving the package."""
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
    """The outlines that the graphs will have when they are written, by role."""
    return {
        role: outline_of(serialized(model, references(model, Layout(model), data_name(name), values=False)))
        for (role, model), name in zip(package.components.items(), package.graph_names.values(), strict=True)
    }
