"""How a checkpoint says its matrices are packed. Planning reads this in processes that touch no weight: no numpy."""

from __future__ import annotations

import re
from dataclasses import dataclass

GPTQ, GPTQ_V2, AWQ, PACK_QUANTIZED = "gptq", "gptq_v2", "awq", "pack-quantized"
BITS = (2, 4, 8)
LINEAR = "Linear"


@dataclass(frozen=True)
class Rule:
    """The scheme of the modules that `targets` name: "Linear" for all, a module's name, or "re:" and a pattern.

    group_size: values of a row that share a scale; None for the whole row. symmetric: all zero points are
    2^(bits - 1). reordered: the values of a group need not stand next to one another (GPTQ's act-order).
    """

    bits: int
    group_size: int | None
    symmetric: bool
    reordered: bool = False
    targets: tuple[str, ...] = (LINEAR,)

    def holds_for(self, module: str) -> bool:
        return any(_matches(target, module) for target in self.targets)


@dataclass(frozen=True)
class Packing:
    """The layout of a checkpoint's packed matrices, and the rules that say which scheme each has."""

    layout: str
    rules: tuple[Rule, ...]

    def rule(self, module: str) -> Rule | None:
        """The first rule that holds for a module, as compressed-tensors has it."""
        return next((rule for rule in self.rules if rule.holds_for(module)), None)


def _matches(target: str, module: str) -> bool:
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), module) is not None
    return target in (LINEAR, module)
