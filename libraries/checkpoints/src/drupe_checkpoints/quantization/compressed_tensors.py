"""The groups of compressed-tensors, which llm-compressor writes."""

from __future__ import annotations

from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.quantization.scheme import KEY, bits_of, group_size_of, refuse_pattern, refused
from drupe_checkpoints.quantization.values import block_rule
from drupe_packed.packing import LINEAR, PACK_QUANTIZED, SCALED, Packing, Rule

EIGHT_BITS = frozenset({"float-quantized", "int-quantized", "naive-quantized"})
"""compressed-tensors' formats of values of 8 bits that are not packed."""


def compressed_tensors(section: Configuration) -> Packing:
    groups = section.section("config_groups")
    if not groups:
        raise refused(section, f"{KEY} of the method compressed-tensors has no config_groups")
    for key in ("kv_cache_scheme", "sparsity_config", "transform_config"):
        if section.get(key):
            raise refused(section, f"compressed-tensors with a {key} is not supported")
    layouts = {_layout(section, groups, name) for name in groups}
    if layouts <= EIGHT_BITS:
        rules = [_of_eight_bits(section, _weights(groups, name), _layout(section, groups, name)) for name in groups]
        if len(set(rules)) > 1:
            raise refused(section, "compressed-tensors with weights of 8 bits in several schemes is not supported")
        return Packing(SCALED, (rules[0],))
    return Packing(PACK_QUANTIZED, tuple(_group(section, groups, name) for name in groups))


def _layout(section: Configuration, groups: Configuration, name: str) -> str:
    group = groups.part(name)
    return group.text("format", section.text("format", ""))


def _weights(groups: Configuration, name: str) -> Configuration:
    group = groups.part(name)
    return group.part("weights")


def _of_eight_bits(section: Configuration, weights: Configuration, layout: str) -> Rule:
    """The rule of a compressed-tensors group whose weights are values of 8 bits, not packed."""
    if bits_of(weights, "num_bits") != 8 or not weights.flag("symmetric", True):
        raise refused(section, f"the compressed-tensors format '{layout}' is supported for symmetric weights of 8 bits")
    strategy = weights.text("strategy", "channel")
    if strategy == "block":
        return block_rule(weights, "block_structure")
    if strategy not in ("tensor", "channel"):
        raise refused(section, f"the scale strategy '{strategy}' is not supported for the format '{layout}'")
    return Rule(8, None, symmetric=True, rows=None if strategy == "tensor" else 1)


def _group(section: Configuration, groups: Configuration, name: str) -> Rule:
    group = groups.part(name)
    layout, weights = _layout(section, groups, name), _weights(groups, name)
    if layout != PACK_QUANTIZED:
        raise refused(
            section,
            f"the compressed-tensors format '{layout}' is not supported beside others; supported: {PACK_QUANTIZED}, "
            f"or alone {', '.join(sorted(EIGHT_BITS))}",
        )
    if weights.text("type", "int") != "int":
        raise refused(section, f"quantized weights of type {weights['type']} are not supported; supported: int")
    strategy = weights.text("strategy", "group" if weights.get("group_size") else "channel")
    if strategy not in ("group", "channel"):
        raise refused(section, f"the scale strategy '{strategy}' is not supported; supported: group and channel")
    return Rule(
        bits_of(weights, "num_bits"),
        group_size_of(weights, "group_size") if strategy == "group" else None,
        weights.flag("symmetric", True),
        bool(weights.get("actorder")),
        _targets(group),
    )


def _targets(group: Configuration) -> tuple[str, ...]:
    targets = group.texts("targets") or (LINEAR,)
    for target in targets:
        refuse_pattern(target, group.path)
    return targets
