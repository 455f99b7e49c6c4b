"""Packing: how a checkpoint's matrices are packed. Planning reads no weights, so this module imports no numpy."""

from __future__ import annotations

import re
from dataclasses import dataclass

GPTQ, GPTQ_V2, AWQ, PACK_QUANTIZED, MXFP4 = "gptq", "gptq_v2", "awq", "pack-quantized", "mxfp4"
BITS = (2, 4, 8)
LINEAR = "Linear"
WORD = 32
BYTE = 8
_GPTQ_PARTS = ("qweight", "qzeros", "scales", "g_idx")
PARTS = {
    GPTQ: _GPTQ_PARTS,
    GPTQ_V2: _GPTQ_PARTS,
    AWQ: ("qweight", "qzeros", "scales"),
    PACK_QUANTIZED: (
        "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx",
    ),
    MXFP4: ("blocks", "scales"),
}  # fmt: skip
"""The tensors of a packed module. The first holds the levels, which every packed module has."""


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

    def __str__(self) -> str:
        return f"{self.bits} bits, {f'blocks of {self.group_size}' if self.group_size else 'a scale for each row'}"

    def holds_for(self, module: str) -> bool:
        return any(_matches(target, module) for target in self.targets)


@dataclass(frozen=True)
class Packing:
    """The layout of a checkpoint's packed matrices, and the rules that say which scheme each has."""

    layout: str
    rules: tuple[Rule, ...]

    @property
    def separator(self) -> str:
        """What stands between the name of a packed tensor and that of its part."""
        return "_" if self.layout == MXFP4 else "."

    @property
    def word(self) -> int:
        """Bits of the integers that levels are packed into."""
        return BYTE if self.layout == MXFP4 else WORD

    def rule(self, module: str) -> Rule | None:
        """The first rule that holds for a module, as in compressed-tensors."""
        return next((rule for rule in self.rules if rule.holds_for(module)), None)

    def packs(self, tensor: str) -> Rule | None:
        """The rule for the levels in the tensor of this name; None for a tensor without levels."""
        module, _, part = tensor.rpartition(self.separator)
        return self.rule(module) if part == PARTS[self.layout][0] else None

    def is_beside(self, tensor: str) -> bool:
        """Whether the tensor of this name belongs to the levels of another one, as scales and zero points do."""
        return tensor.rpartition(self.separator)[2] in PARTS[self.layout][1:]

    def __str__(self) -> str:
        return f"{self.layout}, {'; '.join(dict.fromkeys(map(str, self.rules)))}"


def _matches(target: str, module: str) -> bool:
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), module) is not None
    return target in (LINEAR, module)
