"""The pass `rotate-weights`."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from drupe.api import Context, Model, ModelError, Pass, PassConfig, Shape, Target
from drupe_blockquant import Scheme
from drupe_equalize.expressions import Diagonal, Rotated, RotatedOutputs, as_float
from drupe_equalize.graphs import Norm, constant, constant_of, put_rows, scaled_columns, set_norm_weight, stored
from drupe_equalize.hadamard import random_signs
from drupe_equalize.stream import Stream, find_stream
from drupe_nbits import Site, assign, block_sizes, find_sites, refusal
from drupe_onnx import Array, Expression, OnnxPackage, Reshape, Transpose, ir

BETWEEN_BITS = 8
"""Of the matrix between a final norm and a tied head: it is small, and all that the model says goes through it."""


class RotateWeightsConfig(PassConfig):
    """What `rotate-weights` can be told."""

    seed: int | None = Field(None, description="of the rotation's random signs; by default that of the run")


class RotateWeights(Pass):
    """Rotates the hidden states by an orthogonal matrix Q, folded into the weights; the logits stay what they were.

    After QuaRot (Ashkboos et al. 2024, arXiv 2404.00456), the part that costs nothing when the model runs: norms'
    weights go into the matrices behind them; embedding E becomes EQ, a matrix W that reads hidden states WQ, one that
    writes them Q^T W. No channel of what is quantized then stands out. It only rewrites expressions.
    """

    name = "rotate-weights"
    summary = "rotates the hidden states, so that no channel stands out"
    revision = 1
    Config = RotateWeightsConfig
    requires = Shape("onnx", {"weights": "float"})
    ensures = Shape("onnx", {"weights": "float"})

    def run(self, model: Model, config: RotateWeightsConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        seed = context.seed if config.seed is None else config.seed
        for component in package.components.values():
            try:
                rotate_graph(component.graph, seed, context.target)
            except ModelError as error:
                raise ModelError(error.what, where=model.location, cure=error.cure) from error
        return model


def rotate_graph(graph: ir.Graph, seed: int, target: Target) -> None:
    """Rotate the hidden states of one graph. Raises ModelError, before it has changed anything, where it cannot."""
    stream = find_stream(graph)
    biases = [_bias_of(stream, node, place) for node, place in stream.biases]
    signs = Array(random_signs(stream.size, seed))
    norm_apart = _tied_norm(stream)
    rows = [(site, Rotated(site.rows, signs)) for site in stream.look_ups]
    for site, norm in stream.readers:
        folds = norm is not None and norm is not norm_apart
        rows.append((site, Rotated(scaled_columns(site.rows, norm.weight) if folds and norm else site.rows, signs)))
    put_rows(graph, [*rows, *((site, RotatedOutputs(site.rows, signs)) for site in stream.writers)])
    for (node, place), bias in zip(stream.biases, biases, strict=True):
        rotated = Reshape(Rotated(Reshape(bias, (1, stream.size)), signs), (stream.size,))
        value = node.inputs[place]
        assert value is not None and value.dtype is not None
        node.replace_input_with(place, constant(graph, f"{value.name}_rotated", stored(rotated, value.dtype)))
    if norm_apart is not None:
        _multiply_between(graph, stream, norm_apart, signs, target)
    ones = Array(np.ones(stream.size, np.float32))
    for norm in stream.norms:
        set_norm_weight(graph, norm, ones, "ones")


def _bias_of(stream: Stream, node: ir.Node, place: int) -> Expression:
    bias = constant_of(node.inputs[place])
    if bias is None or bias.size != stream.size:
        raise ModelError(
            f"what '{node.name}' adds to the hidden states is not one value a channel",
            cure="leave --prepare rotate out for this model",
        )
    return bias


def _tied_norm(stream: Stream) -> Norm | None:
    """The norm before a head that shares its matrix with the embedding, where that is better not folded.

    Folded, the head would need a matrix of its own, V x H values. Kept apart, the norm's weight g becomes a product
    with the matrix Q^T diag(g) Q, H x H values, and the head goes on sharing. The smaller one is chosen.
    """
    tables = [site.rows for site in stream.look_ups]
    norms = [norm for site, norm in stream.readers if norm is not None and site.rows in tables]
    vocabulary = min(table.shape[0] for table in tables)
    return norms[0] if norms and stream.size < vocabulary else None


def _multiply_between(graph: ir.Graph, stream: Stream, norm: Norm, signs: Array, target: Target) -> None:
    """Multiply what a norm gives by its weight, in rotated space: n Q becomes (n g) Q."""
    rows = RotatedOutputs(Rotated(Diagonal(as_float(norm.weight)), signs), signs)
    products = [site for site, behind in stream.readers if behind is norm]
    first = products[0]
    given = first.activations
    name = f"{norm.name}/Weight"
    matrix = constant(graph, f"{name}.weight", Transpose(stored(rows, first.dtype)))
    node = ir.Node("", "MatMul", [given, matrix], name=name)
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = f"{name}/output_0", given.type, given.shape
    graph.insert_before(first.node, node)
    for site in products:
        site.node.replace_input_with(0, node.outputs[0])
    _assign_scheme(graph, node, target)


def _assign_scheme(graph: ir.Graph, node: ir.Node, target: Target) -> None:
    """Ask for 8 bits, in a scheme that the target serves; where it serves none, the quantizer decides."""
    site: Site = next(site for site in find_sites(graph) if site.node is node)
    schemes = [
        Scheme(BETWEEN_BITS, size, symmetric)
        for symmetric in (False, True)
        for size in block_sizes(site, BETWEEN_BITS, symmetric, target.capabilities)
    ]
    served = (scheme for scheme in schemes if refusal(site, scheme, target.capabilities) is None)
    if (scheme := next(served, None)) is not None:
        assign(node, scheme)
