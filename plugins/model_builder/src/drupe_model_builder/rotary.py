"""Rotary position embeddings: frequencies out of config.json, and the tables of sines and cosines as lazy weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError
from drupe_huggingface import Configuration
from drupe_model_builder.recipe import Rotary
from drupe_onnx import Expression, Files, ir

Floats = NDArray[np.float32]


def rotary(rope: Configuration, head_dim: int, context_length: int) -> Rotary:
    """The rotary embedding that the rope parameters ask for, with every element of a head rotated.

    Frequencies are float32 numbers, as transformers computes them. Raises ModelError for a type that is not supported.
    """
    kind = rope.text("rope_type")
    if kind not in SCALINGS:
        raise ModelError(
            f"rotary embeddings of type '{kind}' are not supported; supported are: {', '.join(SCALINGS)}",
            where=rope.path,
        )
    if rope.number("partial_rotary_factor") != 1.0:
        raise ModelError("partial_rotary_factor is not supported for this architecture", where=rope.path)
    if head_dim % 2:
        raise ModelError(f"a head dimension of {head_dim} cannot be rotated: an even one is wanted", where=rope.path)
    theta = rope.number("rope_theta")
    # The exponents are float32 in transformers; the power is rounded once here.
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1) / np.power(theta, exponents.astype(np.float64)).astype(np.float32)
    scaled, scaling = SCALINGS[kind](frequencies, rope, context_length)
    return Rotary(tuple(float(each) for each in scaled), scaling)


def _default(frequencies: Floats, rope: Configuration, context_length: int) -> tuple[Floats, float]:
    return frequencies, 1.0


def _linear(frequencies: Floats, rope: Configuration, context_length: int) -> tuple[Floats, float]:
    """Positions are divided by a factor."""
    return frequencies / np.float32(rope.number("factor")), 1.0


def _llama3(frequencies: Floats, rope: Configuration, context_length: int) -> tuple[Floats, float]:
    """Llama 3.1: long wavelengths are stretched by a factor, short ones kept, and those between are mixed."""
    factor = np.float32(rope.number("factor"))
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    trained = rope.integer("original_max_position_embeddings", context_length)
    wavelengths = np.float32(2 * math.pi) / frequencies
    share_kept = (np.float32(trained) / wavelengths - np.float32(low)) / np.float32(high - low)
    mixed = (1 - share_kept) * frequencies / factor + share_kept * frequencies
    stretched = np.where(wavelengths > trained / low, frequencies / factor, mixed)
    return np.where(wavelengths < trained / high, frequencies, stretched), 1.0


def _yarn(frequencies: Floats, rope: Configuration, context_length: int) -> tuple[Floats, float]:
    """YaRN, https://arxiv.org/abs/2309.00071: a ramp from kept to stretched frequencies, and a factor on attention."""
    trained = rope.integer("original_max_position_embeddings", context_length)
    factor = rope.number("factor", context_length / trained)
    theta, pairs = rope.number("rope_theta"), len(frequencies)

    def pair_that_turns(times: float) -> float:
        """The (fractional) number of the pair that turns so many times within the trained context."""
        return 2 * pairs * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_that_turns(rope.get("beta_fast") or 32), pair_that_turns(rope.get("beta_slow") or 1)
    if rope.flag("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    width = last - first or 0.001
    ramp = np.clip((np.arange(pairs, dtype=np.float32) - np.float32(first)) / np.float32(width), 0, 1)
    scaled = frequencies / np.float32(factor) * ramp + frequencies * (1 - ramp)
    return scaled, _yarn_attention(rope, factor)


def _yarn_attention(rope: Configuration, factor: float) -> float:
    def scale(multiplier: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1.0

    given, one, other = rope.get("attention_factor"), rope.get("mscale"), rope.get("mscale_all_dim")
    if given is not None:
        return float(given)
    return scale(one) / scale(other) if one and other else scale(1.0)


SCALINGS: Mapping[str, Callable[[Floats, Configuration, int], tuple[Floats, float]]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}


@dataclass(frozen=True)
class RotaryCache(Expression):
    """The table [positions, pairs] of one function of the angles, times a scaling; computed when it is written.

    All is float32, as in transformers, the product of position and frequency above all: far positions agree with it.
    """

    function: Literal["cos", "sin"]
    positions: int
    frequencies: tuple[float, ...]
    scaling: float
    dtype: ir.DataType

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.positions, len(self.frequencies))

    def rows(self, start: int, stop: int, files: Files) -> NDArray[Any]:
        positions = np.arange(start, stop, dtype=np.float32)
        angles = positions[:, None] * np.asarray(self.frequencies, np.float32)
        table = (np.cos if self.function == "cos" else np.sin)(angles)
        if self.scaling != 1.0:
            table *= np.float32(self.scaling)
        return table.astype(self.dtype.numpy(), copy=False)

    def working_bytes(self, rows: int) -> int:
        return 8 * rows * len(self.frequencies) + self.held_bytes(rows)
