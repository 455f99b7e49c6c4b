"""The pass `allocate-bits`."""

from __future__ import annotations

from drupe.api import Context, Form, Model, Pass
from drupe_mixed_precision.assignment import assign_schemes, assign_to_experts, parts_of
from drupe_mixed_precision.budgets import Allocation, choose_within_budget
from drupe_mixed_precision.configuration import AllocateBitsConfig, refuse_budget
from drupe_mixed_precision.scheme_choice import options
from drupe_nbits import float_precisions
from drupe_onnx import OnnxPackage, capabilities_of


class AllocateBits(Pass):
    """Sets the scheme of each matrix, for `quantize-weights` or another pass that quantizes.

    The matrix of a large vocabulary may be split, because frequent tokens are worth more bits. A budget is for all
    parts of a model together, so the pass takes the model whole.
    """

    name = "allocate-bits"
    summary = "gives each matrix the bits and block size that lose the least quality within a budget of bytes"
    revision = 8
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
        assign_to_experts(package, config.symmetric, capabilities)
        parts = parts_of(package)
        wanted = {"symmetric": config.symmetric, "calibrated": config.calibrated}
        candidates = [options(part, capabilities, **wanted) for part in parts]
        allocation = Allocation(config, package, capabilities, parts, candidates, float_precisions(context.target))
        assign_schemes(parts, allocation.schemes(choose_within_budget(allocation)))
        return model
