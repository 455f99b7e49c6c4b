"""Fitting a graph to a target's element types and operators."""

from __future__ import annotations

from drupe.api import Context, Target
from drupe_layerwise.attention import OPERATOR, norms_apart
from drupe_onnx import capabilities_of, element_name, ir
from drupe_onnx.activation_types import refuse_unserved, served_activations
from drupe_onnx.attention_caches import keep_whole_caches
from drupe_onnx.operator_check import operator_uses
from drupe_onnx.traits import COMPUTED_ONCE
from drupe_onnx_models.casting import FLOAT_TYPES, cast_graph, computed_in, store_matrices, store_scales
from drupe_onnx_models.inferring import complete_types
from drupe_onnx_models.tying import find_twins, share_tied


def fit(model: ir.Model, weights: str | None, activations: str | None, context: Context) -> None:
    """Change a graph to a type and to operators that the target supports, and store its matrices in `weights`.

    weights: the type that float matrices are stored in; None for the one that each has. activations: what the graph is
    to compute in; None for its own type, where the target serves that. Raises UsageError for what it does not serve.
    """
    target, own = context.target, computed_in(model.graph)
    if own is not None:
        wanted = FLOAT_TYPES[_activations(element_name(own), activations, target)]
        if wanted != own:
            cast_graph(model, own, wanted)
            if capabilities_of(target).traits.get(COMPUTED_ONCE):
                store_scales(model)
    _take_norms_apart(model, target)
    keep_whole_caches(model.graph)
    find_twins(model.graph, context)
    share_tied(model.graph, context)
    store_matrices(model, FLOAT_TYPES[weights] if weights else None)


def _activations(own: str, asked: str | None, target: Target) -> str:
    """The type to compute in: the one that was asked for, or the graph's own if the target supports it."""
    served = served_activations(target)
    wanted: str = asked or (own if own in served else served[0])
    refuse_unserved(wanted, target)
    return wanted


def _take_norms_apart(model: ir.Model, target: Target) -> None:
    """Move norms of query and key out of attention if the target's attention does not compute them."""
    uses = [use for node, use in operator_uses(model) if node.op_type == OPERATOR]
    if any(not capabilities_of(target).serves(use) for use in uses):
        norms_apart(model.graph)
        complete_types(model)
