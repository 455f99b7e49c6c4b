"""The steps that quantize weights, from the fast to the best quality, for the recipes of execution providers."""

from __future__ import annotations

from typing import Any

from drupe.api import Step

SCHEME = {name: name for name in ("block_size", "symmetric", "head_bits")}
"""Keys that decide on a scheme, and the options that set them."""
_BUDGET = {name: name for name in ("target_size", "bits_per_weight", "max_kl")}
_CALIBRATE = {key: key for key in (f"calibration_{name}" for name in ("data", "sequences", "length", "seed"))}
_WHICH_TEXT = {key: _CALIBRATE[key] for key in ("calibration_data", "calibration_seed")}
"""How much of it is for what calibrates weights: to tell which of them count, a little does."""
_FIXED = {name: SCHEME[name] for name in ("block_size", "head_bits")}
_BLOCKS = {name: SCHEME[name] for name in ("block_size", "symmetric")}
_METHOD = {"quality": "quality", "method": "method"}
_REPACK = {"block_size": "block_size"}
_BEST = {"quality": ("best",)}
_ROTATE = Step("rotate-weights", when={"prepare": ("rotate",)})
_SMOOTH = Step("smooth-activations", options=_CALIBRATE, when={"prepare": ("smooth",)})


def four_bits(**config: Any) -> tuple[Step, ...]:
    """Fast rounds to nearest; balanced searches, and spends bits where they count; best measures and calibrates.

    `prepare` adds what makes weights easier to quantize: rotations and smoothing before bits are given out, scales of
    channels and the weights of their errors when it is known which bits each matrix gets.
    config: of all passes that decide on schemes, such as `symmetric`.
    """
    return (
        Step("repack-weights", options=_REPACK),
        _ROTATE,
        _SMOOTH,
        Step("measure-sensitivity", options={**_WHICH_TEXT, **_FIXED}, when={**_BEST, "max_kl": ()}),
        Step(
            "allocate-bits",
            config,
            options={"quality": "quality", **_BUDGET, **SCHEME},
            when={"quality": (None, "balanced", "best"), **dict.fromkeys(_BUDGET, ())},
        ),
        Step("scale-channels", config, options={**_CALIBRATE, **_BLOCKS, **_METHOD}, when={"prepare": ("scale",)}),
        Step("weigh-channels", options=_CALIBRATE, when={"prepare": ("weigh",)}),
        Step("quantize-gptq", config, options={**_CALIBRATE, **SCHEME}, when=_BEST),
        Step(
            "quantize-weights",
            {"bits": 4, **config},
            options={**_METHOD, "prepare": "prepare", **SCHEME},
            when={"quality": (None, "fast", "balanced")},
        ),
    )


def eight_bits(**config: Any) -> tuple[Step, ...]:
    """Eight bits are rounded to nearest, whatever the quality."""
    return (
        Step("repack-weights", options=_REPACK),
        _ROTATE,
        _SMOOTH,
        Step("quantize-weights", {"bits": 8, **config}, options={"quality": "quality", **SCHEME}),
    )
