"""The pass `allocate-bits`."""

from __future__ import annotations

from collections.abc import Sequence

from drupe.api import Context, Form, Model, Notice, Pass
from drupe_mixed_precision.assignment import assign_schemes, assign_to_experts, parts_of, reassign_experts
from drupe_mixed_precision.budgets import Allocation, choose_within_budget
from drupe_mixed_precision.configuration import AllocateBitsConfig, refuse_budget
from drupe_mixed_precision.expert_choice import expert_options
from drupe_mixed_precision.groups import Group
from drupe_mixed_precision.scheme_choice import Candidate, candidates_of
from drupe_nbits import ExpertSite, find_experts, float_precisions
from drupe_onnx import Capabilities, OnnxPackage, capabilities_of


class AllocateBits(Pass):
    """Sets the scheme of each matrix, for `quantize-weights` or another pass that quantizes.

    The matrix of a large vocabulary may be split, because frequent tokens are worth more bits. A budget is for all
    parts of a model together, so the pass takes the model whole. Experts have 4 bits, or where a budget has room 8.
    """

    name = "allocate-bits"
    summary = "gives each matrix the bits and block size that lose the least quality within a budget of bytes"
    revision = 11
    Config = AllocateBitsConfig
    requires = Form("onnx", {"weights": ("float", "mixed")})
    ensures = Form("onnx")
    whole = True

    def preview(self, model: Model, config: AllocateBitsConfig, context: Context) -> Model:
        """Uses the default budget instead of a limit of divergence, because nothing has been measured yet."""
        return self.run(model, config.model_copy(update={"max_kl": None}), context)

    def run(self, model: Model, config: AllocateBitsConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        if config.block_size or config.head_bits:
            refuse_budget(config)
            return model
        capabilities = capabilities_of(context.target)
        parts = parts_of(package)
        experts = _choices_of_experts(package, parts, config, capabilities) if config.has_budget else []
        assign_to_experts(package, config.symmetric, capabilities)
        wanted = {"symmetric": config.symmetric, "calibrated": config.calibrated}
        candidates = [candidates_of(part, capabilities, **wanted) for part in parts]
        instead = float_precisions(context.target)
        allocation = Allocation(config, package, capabilities, parts, candidates, instead, experts)
        chosen = choose_within_budget(allocation)
        assign_schemes(parts, allocation.schemes(chosen))
        reassign_experts(package, allocation.expert_schemes(chosen))
        if config.target_size is None:
            return model
        counted = f"{config.target_size} are for graph and weights; the tokenizer and other files come on top"
        return model.noticed(Notice("--target-size", "kept", counted))


def _choices_of_experts(
    package: OnnxPackage, parts: Sequence[Group], config: AllocateBitsConfig, capabilities: Capabilities
) -> list[tuple[ExpertSite, Sequence[Candidate]]]:
    """The experts that the target supports quantized, with the schemes that they may have."""
    sites = [site for component in package.components.values() for site in find_experts(component.graph)]
    wanted = {"symmetric": config.symmetric, "calibrated": config.calibrated}
    found = [(site, expert_options(site, capabilities, **wanted, groups=parts)) for site in sites]
    return [(site, schemes) for site, schemes in found if schemes]
