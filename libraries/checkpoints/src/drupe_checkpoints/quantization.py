"""`quantization_config`: how the matrices of a checkpoint are packed, or why they cannot be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from drupe.api import ModelError
from drupe_checkpoints.configuration import Configuration
from drupe_packed.packing import AWQ, BITS, GPTQ, GPTQ_V2, LINEAR, MXFP4, PACK_QUANTIZED, Packing, Rule

KEY = "quantization_config"
START_AGAIN = "use the checkpoint that it was quantized from, in float16, bfloat16 or float32"
LONGEST_GROUP = 1 << 20


def packing_of(config: Configuration) -> Packing | None:
    """How the checkpoint of this config.json is packed; None where it is not quantized.

    Raises ModelError for a method, or a variant of one, that is not supported.
    """
    section = config.section(KEY)
    if section is None:
        return None
    method = section.text("quant_method")
    if method not in METHODS:
        raise _refused(
            section, f"the checkpoint's quant_method '{method}' is not supported; supported: {', '.join(METHODS)}"
        )
    return METHODS[method](section)


def _gptq(section: Configuration) -> Packing:
    layout = section.text("checkpoint_format", section.text("format", GPTQ))
    if layout not in (GPTQ, GPTQ_V2) or section.flag("is_marlin_format", False):
        raise _refused(
            section, f"the checkpoint's GPTQ format '{layout}' is not supported; supported: gptq and gptq_v2"
        )
    if section.section("dynamic"):
        raise _refused(section, "GPTQ with different schemes for some modules ('dynamic') is not supported")
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
        raise _refused(section, f"the checkpoint's AWQ layout '{version}' is not supported; supported: gemm")
    bits = _bits(section, "bits" if "bits" in section else "w_bit")
    if bits != 4:
        raise _refused(section, f"AWQ with {bits} bits is not supported; supported: 4 bits")
    group_size = _group_size(section, "group_size" if "group_size" in section else "q_group_size")
    return Packing(AWQ, (Rule(bits, group_size, symmetric=False),))


def _compressed_tensors(section: Configuration) -> Packing:
    groups = section.section("config_groups")
    if not groups:
        raise _refused(section, f"{KEY} of the method compressed-tensors has no config_groups")
    for key in ("kv_cache_scheme", "sparsity_config", "transform_config"):
        if section.get(key):
            raise _refused(section, f"compressed-tensors with a {key} is not supported")
    return Packing(PACK_QUANTIZED, tuple(_group(section, groups, name) for name in groups))


def _mxfp4(section: Configuration) -> Packing:
    """Only the tensors that are stored in blocks are packed, whatever `modules_to_not_convert` says."""
    return Packing(MXFP4, (Rule(4, 32, symmetric=True),))


def _group(section: Configuration, groups: Configuration, name: str) -> Rule:
    group = groups.section(name) or Configuration(groups.path, {})
    layout = group.text("format", section.text("format", ""))
    if layout != PACK_QUANTIZED:
        raise _refused(
            section,
            f"the compressed-tensors format '{layout}' is not supported; supported: {PACK_QUANTIZED}",
        )
    weights = group.section("weights") or Configuration(groups.path, {})
    if weights.text("type", "int") != "int":
        raise _refused(section, f"quantized weights of type {weights['type']} are not supported; supported: int")
    strategy = weights.text("strategy", "group" if weights.get("group_size") else "channel")
    if strategy not in ("group", "channel"):
        raise _refused(section, f"the scale strategy '{strategy}' is not supported; supported: group and channel")
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
            raise ModelError(
                f"the target '{target}' in {KEY} is not a regular expression: {error}", where=group.path
            ) from error
    return targets


def _bits(section: Configuration, key: str) -> int:
    bits = section.integer(key)
    if bits not in BITS:
        raise _refused(section, f"weights of {bits} bits are not supported; supported: {', '.join(map(str, BITS))}")
    return bits


def _group_size(section: Configuration, key: str) -> int | None:
    """How many values share a scale; None for -1, which stands for a whole row."""
    return None if section.get(key) == -1 else section.integer(key, most=LONGEST_GROUP)


def _refused(section: Configuration, what: str) -> ModelError:
    return ModelError(what, where=section.path, cure=START_AGAIN)


METHODS: Mapping[str, Callable[[Configuration], Packing]] = {
    "awq": _awq,
    "compressed-tensors": _compressed_tensors,
    "gptq": _gptq,
    "mxfp4": _mxfp4,
}
