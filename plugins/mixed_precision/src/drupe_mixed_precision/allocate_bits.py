"""The pass `allocate-bits`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from drupe.api import Context, Model, Pass, PassConfig, Shape, UsageError
from drupe_blockquant import Scheme
from drupe_mixed_precision.choosing import Budget, Option, choose, options
from drupe_mixed_precision.groups import Group, groups_of
from drupe_mixed_precision.losses import measured_sensitivity
from drupe_mixed_precision.sizes import parse_size
from drupe_mixed_precision.vocabulary import parts_of_vocabulary, split
from drupe_nbits import Site, assign
from drupe_nbits.rewriting import ACCURACY_LEVEL, PRODUCT, quantized_parts
from drupe_onnx import OnnxPackage, expression_of, ir

REFERENCE = Scheme(4, 32, True)
FLOAT, UNTOUCHED = 4, 2  # bytes
"""What the default budget is a multiple of: the model builder's default for all that is multiplied with, and for each
weight that is only looked up, which costs no time, the type that checkpoints have. (The builder makes it float32.)"""
GENEROUS = 1.05
SLOWER = 1.08
"""By default: how long a decoded token may take, as a multiple of what the fastest schemes take."""
UNNOTICED = 2e-3
"""Seconds of each decoded token that nobody wants to save: models so small get all bits that the bytes allow."""
INT8, ACTIVATIONS = 4, 4e-4
"""The accuracy level that multiplies in int8, and what that costs trained models whatever their weights, in nats."""
DOUBT = 4.0
"""How many times too high an estimate may be: below that, a limit is left to the measurement of the package."""
CAUTION = 0.7
"""How much of a limit of divergence is aimed at: the estimate is that far off at times, and the package is measured."""


class AllocateBitsConfig(PassConfig):
    """At most one budget of bytes; without any, as few as `max_kl` allows, or GENEROUS times the usual.

    Only the last of these looks at the time that decoding takes as well.

    block_size, head_bits: where one is given, schemes are the user's business, and this pass leaves everything alone.
    """

    target_size: str | None = Field(None, description="bytes of all weights, such as 250MB")
    bits_per_weight: float | None = Field(None, gt=0, description="bits a weight, scales and zero points included")
    max_kl: float | None = Field(None, gt=0, description="KL divergence, nats a token, that the weights may cost")
    quality: Literal["fast", "balanced", "best"] = Field("balanced", description="best: the weights will be calibrated")
    symmetric: bool = Field(False, description="without zero points")
    block_size: int | None = None
    head_bits: int | None = None


class AllocateBits(Pass):
    """Sets the scheme of each matrix; `quantize-weights`, or what quantizes in its place, goes by it.

    A large vocabulary's matrix may be split for it, since tokens that are often used are worth more bits.
    """

    name = "allocate-bits"
    summary = "gives each matrix the bits and block size that lose least within a number of bytes"
    revision = 6
    Config = AllocateBitsConfig
    requires = Shape("onnx", {"weights": "float"})
    ensures = Shape("onnx", {"weights": "float"})

    def preview(self, model: Model, config: AllocateBitsConfig, context: Context) -> Model:
        """Nothing is measured yet, so a limit of divergence cannot be gone by: the default budget stands for it."""
        return self.run(model, config.model_copy(update={"max_kl": None}), context)

    def run(self, model: Model, config: AllocateBitsConfig, context: Context) -> Model:
        package: OnnxPackage = model.payload
        if config.block_size or config.head_bits:
            _refuse_budget(config)
            return model
        whole = [group for component in package.components.values() for group in groups_of(component.graph)]
        groups = [part for group in whole for part in parts_of_vocabulary(group)]
        wanted = {"symmetric": config.symmetric, "calibrated": config.quality == "best"}
        offered = [(group, options(group, context.target.capabilities, **wanted)) for group in groups]
        served = [(group, found) for group, found in offered if found]
        level = context.target.capabilities.traits.get(ACCURACY_LEVEL)
        floor = ACTIVATIONS if level == INT8 else 0.0
        given = Given(config, _bytes_of_others(package, whole), floor, _left_by_quantized(package))
        chosen = _choose(given, [group for group, _ in served], [found for _, found in served])
        schemes: dict[tuple[Site, ...], list[tuple[Group, Scheme]]] = {}
        for (group, _), option in zip(served, chosen, strict=True):
            schemes.setdefault(group.sites, []).append((group, option.scheme))
        for parts in schemes.values():
            _assign(parts)
        return model


@dataclass(frozen=True)
class Given:
    """What the choice is made under. others: bytes of the weights that stay as they are. floor: KL divergence, nats a
    token, that the target costs whatever the weights are. left: bytes of the default budget that matrices which were
    quantized before do not take.
    """

    config: AllocateBitsConfig
    others: int
    floor: float
    left: int = 0


def _bytes_of_others(package: OnnxPackage, groups: Sequence[Group]) -> int:
    matrices = {expression_of(site.weight) for group in groups for site in group.sites}
    graphs = [component.graph for component in package.components.values()]
    held = {expression_of(value) for graph in graphs for value in graph.initializers.values()}
    return sum(each.nbytes for each in held - matrices if each is not None)


def _left_by_quantized(package: OnnxPackage) -> int:
    """What the default budget has for matrices that are quantized already, less what they take; 0 if that is more."""
    nodes = [node for component in package.components.values() for node in component.graph if node.op_type == PRODUCT]
    by_matrix = {node.inputs[1]: node for node in nodes}
    return max(0, sum(map(_left_by, by_matrix.values())))


def _left_by(node: ir.Node) -> int:
    n, k = (node.attributes[name].as_int() for name in ("N", "K"))
    scales = node.inputs[2]
    scale_bytes = scales.dtype.bitwidth // 8 if scales is not None and scales.dtype is not None else FLOAT
    taken = sum(value.const_value.nbytes for value in quantized_parts(node) if value.const_value is not None)
    return int(GENEROUS * REFERENCE.bytes_for(n, k, scale_bytes)) - taken


def _assign(parts: Sequence[tuple[Group, Scheme]]) -> None:
    """Set the schemes of a matrix; where its parts have several, they become matrices of their own."""
    ranges = [(scheme, list(same)) for scheme, same in itertools.groupby(parts, key=lambda part: part[1])]
    if len(ranges) == 1:
        for site in parts[0][0].sites:
            assign(site.node, parts[0][1])
        return
    bounds = [0]
    for _, same in ranges:
        bounds.append(bounds[-1] + sum(group.shape[0] for group, _ in same))
    for (scheme, _), nodes in zip(ranges, split(parts[0][0], bounds), strict=True):
        for node in nodes:
            assign(node, scheme)


def _choose(given: Given, groups: Sequence[Group], candidates: Sequence[Sequence[Option]]) -> Sequence[Option]:
    config = given.config
    if config.max_kl is not None and config.target_size is None and config.bits_per_weight is None:
        _refuse_unmeasured(groups)
        budget = Budget(sum(found[-1].nbytes for found in candidates))
        chosen = choose(candidates, budget, CAUTION * config.max_kl - given.floor)
        least = sum(option.loss for option in chosen) + given.floor
        if least > DOUBT * config.max_kl:
            raise UsageError(
                f"int4 cannot cost less than about {least:.2g} nats a token here",
                where=f"--max-kl {config.max_kl:g}",
                cure=f"--max-kl {least / CAUTION:.2g}, or --precision fp16",
            )
        return chosen
    nbytes, flag = _asked_for(given, groups)
    if not flag:
        return _by_default(candidates, int(GENEROUS * sum(map(_reference_bytes, groups))) + given.left)
    least_bytes = sum(found[0].nbytes for found in candidates)
    if least_bytes > nbytes:
        bits = 8 * least_bytes / max(1, sum(group.size for group in groups))
        least_size = least_bytes + given.others
        raise UsageError(
            f"the weights take at least {least_size / 1e6:.4g} MB; those that are quantized {bits:.3g} bits each",
            where=flag,
            cure=f"--target-size {-(-least_size // 1000) / 1e3:g}MB, or --bits-per-weight {bits + 0.005:.2f}",
        )
    return choose(candidates, Budget(nbytes))


def _by_default(candidates: Sequence[Sequence[Option]], nbytes: int) -> Sequence[Option]:
    """The best within so many bytes; where that decodes too slowly, time has a price as well."""
    fastest = sum(min(option.seconds for option in found) for found in candidates)
    allowed = max(SLOWER * fastest, UNNOTICED)
    chosen = choose(candidates, Budget(nbytes))
    return (
        chosen if sum(option.seconds for option in chosen) <= allowed else choose(candidates, Budget(nbytes, allowed))
    )


def _reference_bytes(group: Group) -> int:
    if not group.is_multiplied:
        return UNTOUCHED * group.size
    return REFERENCE.bytes_for(*group.shape, group.scale_bytes)


def _asked_for(given: Given, groups: Sequence[Group]) -> tuple[int, str]:
    """Bytes of quantized weights, and the flag that asks for them, where one does."""
    config = given.config
    if config.target_size is not None and config.bits_per_weight is not None:
        raise UsageError("two budgets are given", cure="--target-size or --bits-per-weight")
    if config.target_size is not None:
        return parse_size(config.target_size) - given.others, f"--target-size {config.target_size}"
    if config.bits_per_weight is not None:
        weights = sum(group.size for group in groups)
        return int(weights * config.bits_per_weight / 8), f"--bits-per-weight {config.bits_per_weight:g}"
    return 0, ""


def _refuse_budget(config: AllocateBitsConfig) -> None:
    """A budget and a scheme of one's own exclude each other."""
    budgets = {"--target-size": config.target_size, "--bits-per-weight": config.bits_per_weight}
    given = next((flag for flag, value in budgets.items() if value is not None), None)
    if given:
        fixed = "--block-size" if config.block_size else "--head-bits"
        raise UsageError(f"{given} chooses what {fixed} sets", cure=f"leave {fixed} out")


def _refuse_unmeasured(groups: Sequence[Group]) -> None:
    if any(measured_sensitivity(group) is None for group in groups):
        raise UsageError("a limit of KL divergence needs `measure-sensitivity` before `allocate-bits`")
