"""Choosing the scheme of a matrix on a target, and the error for settings under which no scheme is supported."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from drupe.api import Target, UsageError, replace
from drupe_blockquant import Scheme
from drupe_blockquant.scheme import BLOCK_SIZES
from drupe_nbits import HEAD, Site
from drupe_nbits.target_support import candidates, first_served, leaves_rest, refusal
from drupe_onnx import Capabilities, capabilities_of
from drupe_quant_rtn.configuration import QuantizeWeightsConfig

Change = Mapping[str, Any]
"""A change of settings: keys of the configuration with other values."""


def scheme_for(site: Site, config: QuantizeWeightsConfig, capabilities: Capabilities) -> Scheme | None:
    """Bits by the matrix's role, and the best supported block size; None where the target supports none."""
    return first_served(site, _schemes(site, config, capabilities), capabilities)


def reason(site: Site, config: QuantizeWeightsConfig, capabilities: Capabilities) -> str:
    """Why the target does not support the best scheme for a site."""
    return refusal(site, _schemes(site, config, capabilities)[0], capabilities) or ""


def _schemes(site: Site, config: QuantizeWeightsConfig, capabilities: Capabilities) -> list[Scheme]:
    """The schemes that the configuration allows for a site, the best first. A scheme set by a pass is the only one.

    A block size that was asked for is the only one as well.
    """
    found = candidates(site, config.bits_for(site.role), config.symmetric, config.block_size, capabilities)
    return [replace(scheme, method=config.method_for(scheme.bits)) for scheme in found]


def refuse_settings(site: Site, config: QuantizeWeightsConfig, target: Target) -> None:
    """For a matrix product without a supported scheme: raise UsageError if the given settings are the cause.

    They are the cause if the target would support the product with other settings. If no setting helps, nothing is
    raised.
    """
    cures = _cures(site, config, capabilities_of(target))
    if not cures:
        return
    keys = dict.fromkeys(key for cure in cures for key in cure if config.gives(key))
    raise UsageError(
        f"'{target.provider}' cannot multiply with the matrix '{site.weight.name}' {_as_asked(site, config)}"
        f"{_rest(site, config, capabilities_of(target))}; it can {', or '.join(_together(cures, _in_words))}",
        where=", ".join(f"{key} = {getattr(config, key)}" for key in keys),
        cure=" or ".join(_together(cures, _as_flag)),
    )


def _cures(site: Site, config: QuantizeWeightsConfig, capabilities: Capabilities) -> list[Change]:
    """The changes of settings that give a site a scheme: changes of one key, or of as few given keys as possible.

    Empty where only defaults are in the way.
    """
    others = _others(site, config)

    def served(*keys: str) -> list[Change]:
        changes = (dict(zip(keys, values, strict=True)) for values in itertools.product(*(others[key] for key in keys)))
        return [each for each in changes if scheme_for(site, config.model_copy(update=each), capabilities)]

    single = [change for key in others for change in served(key)]
    if any(config.gives(key) for change in single for key in change):
        return single
    given = [key for key in others if config.gives(key)]
    together = (keys for count in range(2, len(given) + 1) for keys in itertools.combinations(given, count))
    return next((found for keys in together if (found := served(*keys))), [])


def _others(site: Site, config: QuantizeWeightsConfig) -> dict[str, list[Any]]:
    """The keys that decide on a site's scheme, each with its other values."""
    others: dict[str, list[Any]] = {"symmetric": [not config.symmetric]}
    if config.block_size:
        others["block_size"] = [size for size in BLOCK_SIZES if size != config.block_size]
    bits = config.bits_for(site.role)
    others["head_bits" if site.role == HEAD else "bits"] = [each for each in (4, 8) if each != bits]
    return others


def _as_asked(site: Site, config: QuantizeWeightsConfig) -> str:
    asked: dict[str, list[Any]] = {"bits": [config.bits_for(site.role)], "symmetric": [config.symmetric]}
    if config.block_size:
        asked["block_size"] = [config.block_size]
    return " ".join(_in_words(key, values) for key, values in asked.items())


def _rest(site: Site, config: QuantizeWeightsConfig, capabilities: Capabilities) -> str:
    """A note that the rows end within a block, if that is the reason."""
    why = config.block_size and leaves_rest(site, config.block_size, capabilities)
    return f": {why}" if why else ""


def _together(cures: Iterable[Change], say: Callable[[str, Sequence[Any]], str]) -> list[str]:
    """One phrase for each change: values of one key are alternatives, keys of one change belong together."""
    alternatives: dict[tuple[str, ...], dict[str, dict[Any, None]]] = {}
    for cure in cures:
        group = alternatives.setdefault(tuple(cure), {key: {} for key in cure})
        for key, value in cure.items():
            group[key][value] = None
    return [" ".join(say(key, list(values)) for key, values in group.items()) for group in alternatives.values()]


def _in_words(key: str, values: Sequence[Any]) -> str:
    listed = " or ".join(map(str, values))
    if key == "symmetric":
        return "without zero points" if values[0] else "with zero points"
    return f"in blocks of {listed}" if key == "block_size" else f"at {listed} bits"


def _as_flag(key: str, values: Sequence[Any]) -> str:
    if key == "symmetric":
        return "--symmetric" if values[0] else "--asymmetric"
    if key == "bits":
        return " or ".join(f"--precision int{bits}" for bits in values)
    return f"--{key.replace('_', '-')} {' or '.join(map(str, values))}"
