"""The pass `adopt-graph`: turns a graph from any exporter into one that the other passes can work on."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from drupe.api import Context, Form, Model, ModelError, Pass, PassConfig, replace
from drupe_onnx.decoder_description import decoder_of, describe_decoder
from drupe_onnx.metadata import LAST_TOKEN, ROLE
from drupe_onnx.recipes import FloatType
from drupe_onnx.session_options import OWN as SESSION
from drupe_onnx_models.recognizing import GRAPH, refuse_graph
from drupe_onnx_models.side_files import GENAI, GENERATION, side_files, without_weights

if TYPE_CHECKING:
    from drupe_decoding import DecoderPorts
    from drupe_onnx import OnnxPackage, ir


class AdoptGraphConfig(PassConfig):
    """The settings of `adopt-graph`."""

    weights: FloatType | None = Field(None, description="type that float matrices are stored in; by default their own")
    activations: FloatType | None = Field(
        None, description="type that the graph computes in; by default its own, if the target supports it"
    )


class AdoptGraph(Pass):
    """Simplifies the graph, completes its types, casts it to a type that the target supports, and marks its nodes.

    Weights are not moved, and matrices that are already quantized do not change. A decoder with key-value caches gets a
    description, roles and block numbers, and the files that its package needs.
    """

    name = "adopt-graph"
    summary = "turns an ONNX graph from any exporter into one that can be quantized and packaged"
    revision = 1
    Config: ClassVar[type[PassConfig]] = AdoptGraphConfig
    requires = Form("onnx")
    ensures = Form("onnx", {"packaged": "no"})
    libraries = ("drupe-layerwise", "drupe-nbits", "drupe-onnx", "onnx", "onnx_ir")

    def refuse(self, model: Model) -> None:
        """Checks what the graph's file shows."""
        refuse_graph(model.location)

    def run(self, model: Model, config: AdoptGraphConfig, context: Context) -> Model:
        from drupe_nbits import kept_levels
        from drupe_onnx import remove_unused
        from drupe_onnx_models.casting import drop_needless_casts
        from drupe_onnx_models.fitting import fit
        from drupe_onnx_models.inferring import complete_types
        from drupe_onnx_models.marking import mark_decoder
        from drupe_onnx_models.norms import fuse_norms
        from drupe_onnx_models.simplifying import simplify
        from drupe_onnx_models.upgrading import upgrade

        package: OnnxPackage = model.payload
        package.files = without_weights({**side_files(model.location), **package.files})
        package.files.pop(SESSION, None)  # it was chosen for the graph as it was
        component = upgrade(package.component)
        package.components = dict.fromkeys(package.components, component)
        simplify(component)
        complete_types(component)
        drop_needless_casts(component)
        fuse_norms(component, context.target)
        remove_unused(component)
        ports = _ports_of(component.graph)
        if ports is not None:  # before other nodes are put between the blocks
            mark_decoder(component.graph, ports)
        fit(component, config.weights, config.activations, context)
        if ports is not None and model.task != GRAPH:
            _describe(component, ports, package)
        if config.weights:
            model = model.noticed(*kept_levels(component.graph, None))
        dropping = any(node.metadata_props.get(ROLE) == LAST_TOKEN for node in component.graph)
        return model.but(facts={"logits": "last"}) if dropping else model


def _ports_of(graph: ir.Graph) -> DecoderPorts | None:
    """The ports of a decoder with key-value caches; None for any other graph."""
    from drupe_decoding import decoder_ports

    try:
        return decoder_ports(graph)
    except ModelError:
        return None


def _describe(component: ir.Model, ports: DecoderPorts, package: OnnxPackage) -> None:
    """Write the description of a decoder into the graph's metadata, and its settings into the files beside it."""
    from drupe_onnx_models.description import cache_type, describe, generation_config

    description = decoder_of(component) or describe(component.graph, ports, package.files)
    element = cache_type(component.graph, ports)
    describe_decoder(component, replace(description, activations=element, kv_dtype=element))
    if (generation := generation_config(package.files)) is not None:
        package.files[GENERATION] = generation
    package.files.pop(GENAI, None)
