"""GPTQ: AutoGPTQ's and GPTQModel's sections."""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.quantization.scheme import bits_of, group_size_of, refuse_pattern, refused
from drupe_packed.packing import ALL_BITS, GPTQ, GPTQ_BITS, GPTQ_P, GPTQ_V2, Packing, Rule

GPTQ_SCHEME = frozenset({"bits", "group_size", "sym", "desc_act", "pack_dtype"})
"""The keys of a GPTQ section that say how modules are packed."""
GPTQ_EFFORT = frozenset(
    {
        "act_group_aware", "damp_auto_increment", "damp_percent", "fail_safe", "failsafe", "gptaq", "hyb_act", "mse",
        "mock_quantization", "offload_to_disk", "static_groups", "true_sequential", "v2", "v2_alpha",
    }
)  # fmt: skip
"""Those that say how levels were found, which changes nothing in how they are read."""


LAYOUTS = {GPTQ: GPTQ_BITS, GPTQ_V2: GPTQ_BITS, GPTQ_P: ALL_BITS}
"""The bits that each layout holds. GPTQModel writes 5, 6 and 7 bits in gptq_p only."""


def gptq(section: Configuration) -> Packing:
    layout = section.text("checkpoint_format", section.text("format", GPTQ))
    if section.flag("is_marlin_format", False):
        raise refused(section, "GPTQ in Marlin's layout (is_marlin_format) is not supported")
    if layout not in LAYOUTS:
        said, known = "checkpoint_format" if "checkpoint_format" in section else "format", ", ".join(LAYOUTS)
        raise refused(section, f"the checkpoint's GPTQ format '{layout}' ({said}) is not supported; supported: {known}")
    _refuse_words(section)
    if section.get("adapter"):
        raise refused(section, "GPTQ with an adapter that corrects its errors (EoRA) is not supported")
    rule = Rule(
        bits_of(section, "bits", LAYOUTS[layout]),
        group_size_of(section, "group_size"),
        section.flag("sym", True),
        section.flag("desc_act", False),
    )
    dynamic = section.part("dynamic")
    return Packing(layout, (*(_dynamic(dynamic, pattern, rule, LAYOUTS[layout]) for pattern in dynamic), rule))


def _dynamic(dynamic: Configuration, pattern: str, base: Rule, known: tuple[int, ...]) -> Rule:
    """The rule of one of GPTQModel's patterns: "-:" for modules in floating point, "+:" or nothing for own schemes."""
    target = (f"re:{pattern.removeprefix('-:').removeprefix('+:')}",)
    refuse_pattern(target[0], dynamic.path)
    if pattern.startswith("-:"):
        return replace(base, targets=target, unpacked=True)
    own = dynamic.part(pattern)
    _refuse_words(own)
    if other := sorted(own.keys() - GPTQ_SCHEME - GPTQ_EFFORT):
        raise refused(dynamic, f"GPTQ with {', '.join(other)} for some modules ('dynamic') is not supported")
    return Rule(
        bits_of(own, "bits", known) if own.get("bits") is not None else base.bits,
        group_size_of(own, "group_size") if own.get("group_size") is not None else base.group_size,
        own.flag("sym", base.symmetric),
        own.flag("desc_act", base.reordered),
        target,
    )


def _refuse_words(section: Configuration) -> None:
    if section.text("pack_dtype", "int32") != "int32":
        raise refused(
            section, f"GPTQ in words of {section['pack_dtype']} (pack_dtype) is not supported; supported: int32"
        )
