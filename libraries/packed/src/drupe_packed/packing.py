"""Packing: how a checkpoint's matrices are packed. Planning reads no weights, so this module imports no numpy."""

from __future__ import annotations

import re

from drupe.api import Record

GPTQ, GPTQ_V2, GPTQ_P, AWQ = "gptq", "gptq_v2", "gptq_p", "awq"
PACK_QUANTIZED, MLX, MXFP4 = "pack-quantized", "mlx", "mxfp4"
SCALED = "scaled"
"""Values of 8 bits, each times a scale: FP8 and int8."""
BITS = (2, 4, 8)
GPTQ_BITS = (2, 3, 4, 8)
AWQ_BITS = (4, 5, 6, 7)
MLX_BITS = (2, 3, 4, 5, 6, 8)
ALL_BITS = (2, 3, 4, 5, 6, 7, 8)
"""What GPTQ's layout in planes holds, and what AutoRound writes in GPTQ's layout."""
LINEAR = "Linear"
WORD = 32
BYTE = 8
_GPTQ_PARTS = ("qweight", "qzeros", "scales", "g_idx")
PARTS = {
    GPTQ: _GPTQ_PARTS,
    GPTQ_V2: _GPTQ_PARTS,
    GPTQ_P: _GPTQ_PARTS,
    AWQ: ("qweight", "qzeros", "scales"),
    PACK_QUANTIZED: (
        "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx",
    ),
    MLX: ("weight", "scales", "biases"),
    MXFP4: ("blocks", "scales"),
    SCALED: ("weight", "weight_scale_inv", "weight_scale", "gate_up_proj_scale_inv", "down_proj_scale_inv",
             "input_scale", "activation_scale"),
}  # fmt: skip
"""The tensors of a packed module. The first holds the levels, in integers."""
MARKS = {layout: parts[0] for layout, parts in PARTS.items()} | {MLX: "scales"}
"""The tensor that every packed module has and no other module."""
LEVEL_TYPES = frozenset({"int32", "uint32", "uint8"})


class Rule(Record):
    """The scheme of the modules that `targets` name: "Linear" for all, a module's name, or "re:" and a pattern.

    group_size: values of a row that share a scale; None for the whole row. symmetric: all zero points are
    2^(bits - 1). reordered: the values of a group need not stand next to one another (GPTQ's act-order).
    unpacked: the modules are in floating point, whatever a later rule says.
    rows: rows that share a scale with each group, in scaled values; None for all.
    """

    bits: int
    group_size: int | None
    symmetric: bool
    reordered: bool = False
    targets: tuple[str, ...] = (LINEAR,)
    unpacked: bool = False
    rows: int | None = 1

    def __str__(self) -> str:
        return f"{self.bits} bits, {f'blocks of {self.group_size}' if self.group_size else 'a scale for each row'}"

    def holds_for(self, module: str) -> bool:
        return any(_matches(target, module) for target in self.targets)


class Packing(Record):
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
        """The first rule that holds for a module, as in compressed-tensors; None for one in floating point."""
        found = next((rule for rule in self.rules if rule.holds_for(module)), None)
        return None if found is None or found.unpacked else found

    def packs(self, tensor: str, element_type: str) -> Rule | None:
        """The rule for the levels in the tensor of this name and type; None for a tensor without levels."""
        module, _, part = tensor.rpartition(self.separator)
        return self.rule(module) if part == PARTS[self.layout][0] and element_type in LEVEL_TYPES else None

    def is_beside(self, tensor: str) -> bool:
        """Whether the tensor of this name belongs to the levels of another one, as scales and zero points do."""
        return tensor.rpartition(self.separator)[2] in PARTS[self.layout][1:]

    def __str__(self) -> str:
        return f"{self.layout}, {'; '.join(dict.fromkeys(str(rule) for rule in self.rules if not rule.unpacked))}"


def _matches(target: str, module: str) -> bool:
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), module) is not None
    return target in (LINEAR, module)
