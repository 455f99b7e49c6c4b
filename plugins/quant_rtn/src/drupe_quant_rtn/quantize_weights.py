"""The pass `quantize-weights`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from drupe.api import Capabilities, Context, Model, ModelError, Pass, PassConfig, Shape
from drupe_blockquant import Scheme, choose_block_size
from drupe_blockquant.scheme import BLOCK_SIZES, Method
from drupe_onnx import OnnxPackage, ir
from drupe_quant_rtn.rewriting import Rewriter, serves_product
from drupe_quant_rtn.sites import EMBEDDING, HEAD, Site, find_sites

METHODS: dict[str, Method] = {"fast": "rtn", "balanced": "search"}
WANTED_BLOCK = 128
"""Large blocks decode faster and take fewer bytes for scales; with the error search they lose little."""
WHOLE_BLOCKS = "matmul_nbits_whole_blocks"
"""The trait of a target whose MatMulNBits takes no row that ends within a block."""
ACCURACY_LEVEL = "matmul_nbits_accuracy_level"
"""The trait of a target that says in which precision its MatMulNBits is fast."""

Bits = Literal[2, 4, 8]


class QuantizeWeightsConfig(PassConfig):
    """What `quantize-weights` can be told."""

    bits: Bits = Field(4, description="bits of a weight")
    quality: Literal["fast", "balanced"] = Field("balanced", description="round to nearest, or search for least error")
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(None, description="weights that share a scale")
    symmetric: bool = Field(False, description="without zero points")
    head_bits: Bits | None = Field(None, description="bits of the head; by default 8")
    embedding_bits: Bits | None = Field(None, description="bits of the embedding; by default those of the head")
    accuracy_level: int | None = Field(None, ge=0, le=4, description="of MatMulNBits; by default the target's")

    def bits_for(self, role: str) -> int:
        """Small models lose most through their embedding and head, so these get 8 bits unless told otherwise."""
        head = self.head_bits or 8
        return {HEAD: head, EMBEDDING: self.embedding_bits or head}.get(role, self.bits)


class QuantizeWeights(Pass):
    """Puts quantized weights in the place of float ones. It only rewrites the graph; the writer computes."""

    name = "quantize-weights"
    summary = "quantizes weights in blocks to 2, 4 or 8 bits, without data"
    revision = 1
    Config = QuantizeWeightsConfig
    requires = Shape("onnx", {"weights": "float"})
    ensures = Shape("onnx", {"weights": "quantized"})
    libraries = ("drupe-blockquant",)

    def run(self, model: Model, config: QuantizeWeightsConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        traits = context.target.capabilities.traits
        level = config.accuracy_level if config.accuracy_level is not None else traits.get(ACCURACY_LEVEL)
        found = [quantize_graph(each.graph, config, context, level) for each in package.components.values()]
        if not any(found):
            raise ModelError(
                "the model has no matrix of float weights to quantize",
                where=model.location,
                cure="choose a floating-point --precision for it",
            )
        return model


def quantize_graph(graph: ir.Graph, config: QuantizeWeightsConfig, context: Context, level: int | None) -> int:
    """Quantize every site of a graph that the target serves; returns how many there were."""
    capabilities = context.target.capabilities
    rewriter = Rewriter(graph, capabilities, level)
    sites = find_sites(graph)
    for site in sites:
        scheme = scheme_for(site, config, capabilities)
        if scheme is None or not rewriter.rewrite(site, scheme):
            rewriter.keep(site)
    _remove_unused(graph)
    return len(sites)


def scheme_for(site: Site, config: QuantizeWeightsConfig, capabilities: Capabilities) -> Scheme | None:
    """Bits by the matrix's role, and a block size that wastes little on padding; None where the target serves no block.

    A block size that was asked for is taken as it is, except where the target needs whole blocks and it leaves a rest.
    """
    bits, k = config.bits_for(site.role), site.rows.shape[1]
    best = config.block_size or choose_block_size(
        k, WANTED_BLOCK, bits=bits, symmetric=config.symmetric, scale_bytes=site.dtype.bitwidth // 8
    )
    smaller = [] if config.block_size else [size for size in reversed(BLOCK_SIZES) if size < best]
    for block in (best, *smaller):
        scheme = Scheme(bits, block, config.symmetric, _method(bits, config))
        if _fits(scheme, k, site, capabilities):
            return scheme
    return None


def _method(bits: int, config: QuantizeWeightsConfig) -> Method:
    """8 bits are rounded to nearest: a search takes a tenth off an error that is 1/250 of that at 4 bits."""
    return "rtn" if bits == 8 else METHODS[config.quality]


def _fits(scheme: Scheme, k: int, site: Site, capabilities: Capabilities) -> bool:
    if capabilities.traits.get(WHOLE_BLOCKS) and k % scheme.block_size:
        return False
    return site.is_look_up or serves_product(site, scheme, capabilities)


def _remove_unused(graph: ir.Graph) -> None:
    """Drop casts and initializers that nothing uses any more."""
    for node in reversed(graph):
        if node.op_type == "Cast" and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            graph.remove(node, safe=True)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        if not graph.initializers[name].is_graph_output():
            del graph.initializers[name]
