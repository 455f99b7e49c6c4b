"""`quantization_config`: how the matrices of a checkpoint are packed, or why they cannot be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from drupe.api import ModelError
from drupe_huggingface.configuration import Configuration
from drupe_packed.packing import AWQ, BITS, GPTQ, GPTQ_V2, LINEAR, PACK_QUANTIZED, Packing, Rule

KEY = "quantization_config"
START_AGAIN = "use the checkpoint it was made from, in float16, bfloat16 or float32"
LONGEST_GROUP = 1 << 20


def packing_of(config: Configuration) -> Packing | None:
    """How the checkpoint of this config.json is packed; None where it is not.

    Raises ModelError for a method, or a variety of one, that cannot be read.
    """
    section = config.section(KEY)
    if section is None:
        return None
    method = section.text("quant_method")
    if method not in METHODS:
        raise _refused(section, f"the checkpoint is quantized with quant_method '{method}', which is not read")
    return METHODS[method](section)


def _gptq(section: Configuration) -> Packing:
    layout = section.text("checkpoint_format", section.text("format", GPTQ))
    if layout not in (GPTQ, GPTQ_V2) or section.flag("is_marlin_format", False):
        raise _refused(
            section, f"the checkpoint is in the GPTQ format '{layout}', of which only gptq and gptq_v2 are read"
        )
    if section.section("dynamic"):
        raise _refused(section, "the checkpoint's GPTQ has schemes of its own for some modules ('dynamic')")
    rule = Rule(
        _bits(section, "bits"),
        _group_size(section, "group_size"),
        section.flag("sym", True),
        section.flag("desc_act", False),
    )
    return Packing(layout, (rule,))


def _awq(section: Configuration) -> Packing:
    version = section.text("version", "gemm").lower()
    if version != "gemm":
        raise _refused(section, f"the checkpoint is in the AWQ layout '{version}', of which only gemm is read")
    bits = _bits(section, "bits" if "bits" in section else "w_bit")
    if bits != 4:
        raise _refused(section, f"the checkpoint's AWQ has {bits} bits, of which only 4 are read")
    group_size = _group_size(section, "group_size" if "group_size" in section else "q_group_size")
    return Packing(AWQ, (Rule(bits, group_size, symmetric=False),))


def _compressed_tensors(section: Configuration) -> Packing:
    groups = section.section("config_groups")
    if not groups:
        raise _refused(section, "the checkpoint's compressed-tensors has no config_groups")
    for key in ("kv_cache_scheme", "sparsity_config", "transform_config"):
        if section.get(key):
            raise _refused(section, f"the checkpoint's compressed-tensors has a {key}, which is not read")
    return Packing(PACK_QUANTIZED, tuple(_group(section, groups, name) for name in groups))


def _group(section: Configuration, groups: Configuration, name: str) -> Rule:
    group = groups.section(name) or Configuration(groups.path, {})
    layout = group.text("format", section.text("format", ""))
    if layout != PACK_QUANTIZED:
        raise _refused(
            section,
            f"the checkpoint is in the compressed-tensors format '{layout}', of which only {PACK_QUANTIZED} is read",
        )
    weights = group.section("weights") or Configuration(groups.path, {})
    if weights.text("type", "int") != "int":
        raise _refused(
            section, f"the checkpoint's weights are of the type {weights['type']}, of which only int is read"
        )
    strategy = weights.text("strategy", "group" if weights.get("group_size") else "channel")
    if strategy not in ("group", "channel"):
        raise _refused(
            section, f"the checkpoint's scales are for each '{strategy}', of which only group and channel are read"
        )
    return Rule(
        _bits(weights, "num_bits"),
        _group_size(weights, "group_size") if strategy == "group" else None,
        weights.flag("symmetric", True),
        bool(weights.get("actorder")),
        _targets(group),
    )


def _targets(group: Configuration) -> tuple[str, ...]:
    targets = group.texts("targets") or (LINEAR,)
    for target in targets:
        try:
            re.compile(target.removeprefix("re:"))
        except re.error as error:
            raise ModelError(f"the target '{target}' in {KEY} is no pattern: {error}", where=group.path) from error
    return targets


def _bits(section: Configuration, key: str) -> int:
    bits = section.integer(key)
    if bits not in BITS:
        raise _refused(section, f"the checkpoint has weights of {bits} bits; {', '.join(map(str, BITS))} are read")
    return bits


def _group_size(section: Configuration, key: str) -> int | None:
    """Values that share a scale; None for -1, a whole row."""
    return None if section.get(key) == -1 else section.integer(key, most=LONGEST_GROUP)


def _refused(section: Configuration, what: str) -> ModelError:
    return ModelError(what, where=section.path, cure=START_AGAIN)


METHODS: Mapping[str, Callable[[Configuration], Packing]] = {
    "awq": _awq,
    "compressed-tensors": _compressed_tensors,
    "gptq": _gptq,
}
