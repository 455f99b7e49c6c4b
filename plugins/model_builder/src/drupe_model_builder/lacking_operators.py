"""Decoders that a target lacks an operator for: whether a table has all operators is found by building with it."""

from __future__ import annotations

from drupe.api import ModelError, Target, Unfit, registry
from drupe_model_builder.checkpoint_tensors import DecoderWeights
from drupe_model_builder.decoder import DecoderGraph
from drupe_model_builder.graph import GraphBuilder
from drupe_model_builder.parts.experts import OPERATOR as EXPERTS
from drupe_model_builder.precision import FLOATS, Precision
from drupe_onnx import MICROSOFT, Capabilities, OldRuntime, TableProvider, target_title
from drupe_onnx.operator_check import operator_uses

ELSEWHERE = "choose another --precision or --provider, or another model"


def unfit(what: str, weights: DecoderWeights, activations: str, target: Target) -> Unfit:
    """The error of a decoder that the target cannot run in this type; OldRuntime where the newest runtime can.

    what: what the target lacks, without a subject ("has no MoE").
    """
    what = f"{target_title(target)} {what}"
    provider = registry().provider(target.provider) if target.provider in registry().providers else None
    if isinstance(provider, TableProvider) and isinstance(target.capabilities, Capabilities):
        newest = provider.capabilities(None)
        newer = newest.runtime_versions != target.capabilities.runtime_versions
        if newer and builds(weights, activations, newest):
            return OldRuntime(what, cure=provider.packages[0].install.replace("install ", "install -U "))
    return Unfit(what, cure=ELSEWHERE)


def builds(weights: DecoderWeights, activations: str, capabilities: Capabilities) -> bool:
    """Whether a target with this table of operators can run the decoder in that type: each of its nodes has a kernel.

    Experts have none where they run only when they are quantized; their part has seen that they do.
    """
    graph = GraphBuilder(weights.tensors, Precision(FLOATS[activations], None), capabilities)
    try:
        made = DecoderGraph(graph, weights.decoder).build(all_logits=False)
    except ModelError:
        return False
    uses = [use for _, use in operator_uses(made) if (use.domain, use.name) != (MICROSOFT, EXPERTS)]
    return all(map(capabilities.serves, uses))
