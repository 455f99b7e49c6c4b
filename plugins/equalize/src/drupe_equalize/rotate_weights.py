"""The pass `rotate-weights`."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from drupe.api import Context, Form, Model, ModelError, Pass, PassConfig, Target
from drupe_blockquant import Scheme
from drupe_equalize.expressions import Diagonal, Rotated, RotatedOutputs, scaled_columns
from drupe_equalize.hadamard import random_signs
from drupe_equalize.matrix_replacement import put_rows
from drupe_equalize.norms import Norm, set_norm_weight
from drupe_equalize.residual_stream import Stream, find_stream
from drupe_nbits import DOWN_BIAS, Site, assign, block_sizes, find_sites, put_expert_rows, refusal
from drupe_onnx import (
    Array,
    Concat,
    Expression,
    OnnxPackage,
    Reshape,
    Tape,
    Transpose,
    as_type,
    capabilities_of,
    constant_of,
    ir,
    shared_initializer,
)

BETWEEN_BITS = 8
"""Bits of the matrix between a final norm and a tied head: it is small, and every logit depends on it."""


class RotateWeightsConfig(PassConfig):
    """The settings of `rotate-weights`."""

    seed: int | None = Field(
        None, ge=0, description="the seed of the rotation's random signs; by default the run's seed"
    )


class RotateWeights(Pass):
    """Rotates the hidden states by an orthogonal matrix Q, which is folded into the weights. The logits do not change.

    This is the part of QuaRot (Ashkboos et al. 2024, arXiv 2404.00456) that costs nothing when the model runs: norms'
    weights are folded into the matrices after them; the embedding E becomes EQ, a matrix W that reads hidden states
    becomes WQ, and a matrix W that writes them becomes Q^T W. The quantized matrices then have no outlier channels.
    The pass only rewrites expressions.
    """

    name = "rotate-weights"
    summary = "rotates the hidden states, so that no channel has outliers"
    revision = 3
    Config = RotateWeightsConfig
    requires = Form("onnx", {"weights": "float"})
    ensures = Form("onnx")

    def run(self, model: Model, config: RotateWeightsConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        seed = context.seed if config.seed is None else config.seed
        try:
            rotate_graph(package.component.graph, seed, context.target)
        except ModelError as error:
            raise ModelError(error.what, where=model.location, cure=error.cure) from error
        return model


def rotate_graph(graph: ir.Graph, seed: int, target: Target) -> None:
    """Rotate the hidden states of one graph. Raises ModelError before any change if the graph cannot be rotated."""
    stream = find_stream(graph)
    biases = [_bias_of(stream, node, place) for node, place in stream.biases]
    signs = Array(random_signs(stream.size, seed))
    norm_apart = _tied_norm(stream)
    rows = [(site, Rotated(site.rows, signs)) for site in stream.look_ups]
    for site, norm in stream.readers:
        folds = norm is not None and norm is not norm_apart
        rows.append((site, Rotated(scaled_columns(site.rows, norm.weight) if folds and norm else site.rows, signs)))
    put_rows(graph, [*rows, *((site, RotatedOutputs(site.rows, signs)) for site in stream.writers)])
    _rotate_experts(graph, stream, signs)
    for (node, place), bias in zip(stream.biases, biases, strict=True):
        rotated = Reshape(Rotated(Reshape(bias, (1, stream.size)), signs), (stream.size,))
        value = node.inputs[place]
        assert value is not None and value.dtype is not None
        new = shared_initializer(graph, f"{value.name}_rotated", as_type(rotated, value.dtype))
        node.replace_input_with(place, new)
    if norm_apart is not None:
        _multiply_between(graph, stream, norm_apart, signs, target)
    ones = Array(np.ones(stream.size, np.float32))
    for norm in stream.norms:
        set_norm_weight(graph, norm, ones, "ones")


def _rotate_experts(graph: ir.Graph, stream: Stream, signs: Array) -> None:
    """Rotate what experts read, with the weight of the norm before them, and what they write."""
    for site, norm in stream.expert_readers:
        put_expert_rows(site.up, Rotated(scaled_columns(site.up.rows, norm.weight) if norm else site.up.rows, signs))
    for site in stream.experts:
        put_expert_rows(site.down, Concat(tuple(RotatedOutputs(each, signs) for each in site.down.apart)))
        biases = site.node.inputs[DOWN_BIAS] if len(site.node.inputs) > DOWN_BIAS else None
        held = constant_of(biases)
        if biases is not None and held is not None and biases.dtype is not None:
            rotated = as_type(Rotated(held, signs), biases.dtype)
            site.node.replace_input_with(DOWN_BIAS, shared_initializer(graph, f"{biases.name}_rotated", rotated))


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
    rows = RotatedOutputs(Rotated(Diagonal(as_type(norm.weight, ir.DataType.FLOAT)), signs), signs)
    products = [site for site, behind in stream.readers if behind is norm]
    first = products[0]
    given = first.activations
    name = f"{norm.name}/Weight"
    matrix = shared_initializer(graph, f"{name}.weight", Transpose(as_type(rows, first.dtype)))
    tape = Tape()
    weighted = tape.node("MatMul", [given, matrix], name, given.dtype, given.shape)
    graph.insert_before(first.node, tape.nodes)
    for site in products:
        site.node.replace_input_with(0, weighted)
    _assign_scheme(graph, weighted, target)


def _assign_scheme(graph: ir.Graph, product: ir.Value, target: Target) -> None:
    """Ask for 8 bits, in a scheme that the target serves; where it serves none, the quantizer decides."""
    site: Site = next(site for site in find_sites(graph) if site.result is product)
    schemes = [
        Scheme(BETWEEN_BITS, size, symmetric)
        for symmetric in (False, True)
        for size in block_sizes(site, BETWEEN_BITS, symmetric, capabilities_of(target))
    ]
    served = (scheme for scheme in schemes if refusal(site, scheme, capabilities_of(target)) is None)
    if (scheme := next(served, None)) is not None:
        assign(site.node, scheme)
