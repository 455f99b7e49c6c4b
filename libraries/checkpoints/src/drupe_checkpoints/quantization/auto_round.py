"""AutoRound's own format."""

from __future__ import annotations

import re
from collections.abc import Mapping

from drupe.api import replace
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.quantization.scheme import bits_of, group_size_of, refuse_pattern, refused
from drupe_packed.packing import ALL_BITS, AWQ, AWQ_BITS, GPTQ, GPTQ_V2, Packing, Rule

AUTO_ROUND: Mapping[str, str] = {
    "auto_gptq": GPTQ, "gptq": GPTQ, "auto": GPTQ, "gptqmodel": GPTQ_V2, "auto_round": GPTQ_V2, "auto_awq": AWQ,
    "awq": AWQ,
}  # fmt: skip
"""AutoRound's formats that are read, and whose layout each has."""
BITS = {GPTQ: ALL_BITS, GPTQ_V2: ALL_BITS, AWQ: AWQ_BITS}
"""The bits that it writes in each layout."""


def auto_round(section: Configuration) -> Packing:
    """AutoRound's own format, which packs as GPTQ or AWQ do: https://github.com/intel/auto-round."""
    kind = section.text("data_type", "int")
    if kind != "int":
        raise refused(section, f"AutoRound with weights of type '{kind}' (data_type) is not supported; supported: int")
    if section.integer("act_bits", 16) < 16:
        raise refused(section, "AutoRound with quantized activations (act_bits below 16) is not supported")
    if rotated := next((key for key in ("spinquant_config", "rotation_config") if section.get(key)), None):
        raise refused(section, f"AutoRound with rotations ({rotated}) is not supported")
    layout = section.text("packing_format", "auto_round:auto_gptq").removeprefix("auto_round:")
    if layout not in AUTO_ROUND:
        raise refused(
            section,
            f"AutoRound's format '{layout}' (packing_format) is not supported; supported: {', '.join(AUTO_ROUND)}",
        )
    layout = AUTO_ROUND[layout]
    known = BITS[layout]
    symmetric = section.flag("sym", True) and layout != AWQ
    rule = Rule(bits_of(section, "bits", known), group_size_of(section, "group_size"), symmetric)
    own = section.part("extra_config")
    return Packing(layout, (*(_own_scheme(own, name, rule, known) for name in own), rule))


def _own_scheme(modules: Configuration, name: str, base: Rule, known: tuple[int, ...]) -> Rule:
    """The rule of a module, or of the modules that a regular expression finds, in AutoRound's extra_config."""
    own = modules.part(name)
    target = (name,) if re.fullmatch(r"[\w.]+", name) else (f"re:.*(?:{name})",)
    refuse_pattern(target[0], modules.path)
    if own.get("bits") is not None and own.integer("bits") >= 16:
        return replace(base, targets=target, unpacked=True)
    return Rule(
        bits_of(own, "bits", known) if own.get("bits") is not None else base.bits,
        group_size_of(own, "group_size") if own.get("group_size") is not None else base.group_size,
        own.flag("sym", base.symmetric) and base.symmetric,
        targets=target,
    )
