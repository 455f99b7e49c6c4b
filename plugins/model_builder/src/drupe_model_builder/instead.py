"""Where a decoder can be built that a target lacks an operator for, found by building it there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drupe.api import ExecutionProvider, ModelError, Recipe, Stage, Target, registry, target_of
from drupe_model_builder.checkpoint_tensors import DecoderWeights
from drupe_model_builder.decoder import DecoderGraph
from drupe_model_builder.graph import GraphBuilder
from drupe_model_builder.parts.experts import OPERATOR as EXPERTS
from drupe_model_builder.precision import FLOATS, Precision
from drupe_onnx import MICROSOFT, Capabilities, TableProvider
from drupe_onnx.operator_check import operator_uses

NOWHERE = "choose another model: no provider that is installed can run this one"


def instead(weights: DecoderWeights, activations: str, target: Target) -> str:
    """The options and commands with which the decoder can be built; in words, for a cure.

    activations: the type with which the target cannot run it.
    """
    found = registry()
    asked: list[str] = []
    ways: list[str] = []
    if target.provider in found.providers:
        own = found.provider(target.provider)
        asked = [recipe.precision for recipe in own.recipes() if _activations(recipe, target) in (activations, None)]
        ways += _other_precisions(weights, own, target, activations)
        ways += _newer_runtimes(weights, own, target, activations)
    for _, provider in found.sound_providers():
        if provider.name != target.provider:
            ways += _on(weights, provider, target_of(provider, found), asked)
    return " or ".join(ways) or NOWHERE


def _other_precisions(
    weights: DecoderWeights, provider: ExecutionProvider, target: Target, activations: str
) -> Iterator[str]:
    """The first precision with other activations that the target can run."""
    for recipe in provider.recipes():
        other = _activations(recipe, target)
        if other not in (activations, None) and builds(weights, other, target.capabilities):
            yield f"--precision {recipe.precision}"
            return


def _newer_runtimes(
    weights: DecoderWeights, provider: ExecutionProvider, target: Target, activations: str
) -> Iterator[str]:
    """The command that updates the target's runtime, where its newest version can run the decoder."""
    if not isinstance(provider, TableProvider):
        return
    newest = provider.capabilities(None)
    if newest.runtime_versions != target.capabilities.runtime_versions and builds(weights, activations, newest):
        yield provider.packages[0].install.replace("install ", "install -U ")


def _on(weights: DecoderWeights, provider: ExecutionProvider, target: Target, asked: Sequence[str]) -> Iterator[str]:
    """The option that chooses another provider, with a precision where it has none of those that were asked for."""
    wanted = [recipe for recipe in provider.recipes() if recipe.precision in asked]
    for recipe in wanted or provider.recipes():
        if builds(weights, _activations(recipe, target), target.capabilities):
            yield f"--provider {provider.name}" + ("" if wanted else f" --precision {recipe.precision}")
            return


def _activations(recipe: Recipe, target: Target) -> str | None:
    """The type that a recipe computes in; None where it imports no model, or the target has no table of operators."""
    if not isinstance(target.capabilities, Capabilities):
        return None
    imports = [stage for stage in recipe.stages if isinstance(stage, Stage) and stage.name == "import"]
    default = target.capabilities.activations[0]
    return next((str(stage.numerics.get("activations", default)) for stage in imports), None)


def builds(weights: DecoderWeights, activations: str | None, capabilities: object) -> bool:
    """Whether a target with this table of operators can run the decoder in that type: each of its nodes has a kernel.

    Experts have none where they run only when they are quantized; their part has seen that they do.
    """
    if activations not in FLOATS or not isinstance(capabilities, Capabilities):
        return False
    graph = GraphBuilder(weights.tensors, Precision(FLOATS[activations], None), capabilities)
    try:
        made = DecoderGraph(graph, weights.decoder).build(all_logits=False)
    except ModelError:
        return False
    uses = [use for _, use in operator_uses(made) if (use.domain, use.name) != (MICROSOFT, EXPERTS)]
    return all(map(capabilities.serves, uses))
