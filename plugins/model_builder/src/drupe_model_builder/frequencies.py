"""Rotary position embeddings: their frequencies, from config.json.

The arithmetic is that of float32, as in transformers, but without numpy, which takes longer to import than all of
`drupe inspect`. Python's floats are doubles. A sum, product or quotient of two float32 numbers that is computed in
double and then rounded equals the result of float32 arithmetic.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence

from drupe.api import ModelError
from drupe_checkpoints import Configuration
from drupe_model_builder.parts.rotary import Rotary

WIDEST = 1 << 16  # elements of a head; known models have at most 512

PROPORTIONAL = "proportional"

Floats = Sequence[float]


def rotary(rope: Configuration, head_dim: int, context_length: int, *, interleaved: bool = False) -> Rotary:
    """The rotary embedding with these rope parameters. `partial_rotary_factor` is the share of a head that it rotates.

    Frequencies are float32 numbers, as transformers computes them. Raises ModelError for a type that is not supported
    and for parameters that give no frequencies.
    """
    kind = rope.text("rope_type")
    if kind == PROPORTIONAL:
        return _proportional(rope, head_dim, interleaved)
    if kind not in SCALINGS:
        raise ModelError(
            f"rotary embeddings of type '{kind}' are not supported; supported: {', '.join((*SCALINGS, PROPORTIONAL))}",
            where=rope.path,
            cure="correct rope_type if it is misspelt; otherwise the model needs a plugin that supports it",
        )
    width = int(head_dim * rope.number("partial_rotary_factor", above=0))
    if width % 2 or not 0 < width <= min(head_dim, WIDEST):
        raise rope.mistake(
            f"{width} of the {head_dim} elements of a head cannot be rotated: it must be an even number up to {WIDEST}"
        )
    try:
        scaled, scaling = SCALINGS[kind](_frequencies(rope, width), rope, context_length)
        if all(0 < each < math.inf for each in scaled) and 0 < scaling < math.inf:
            return Rotary(tuple(scaled), scaling, interleaved)
    except (ArithmeticError, ValueError):  # a division by zero, or the logarithm of it
        pass
    raise rope.mistake(f"the rotary parameters give no usable frequencies: {dict(rope)}")


def _proportional(rope: Configuration, head_dim: int, interleaved: bool) -> Rotary:
    """The whole head takes part, but only the first pairs turn: `partial_rotary_factor` is their share."""
    turning = int(rope.number("partial_rotary_factor", above=0) * head_dim // 2)
    factor = _f32(rope.number("factor", 1.0, above=0))
    if head_dim % 2 or not 0 < turning <= head_dim // 2:
        raise rope.mistake(f"{turning} of the {head_dim // 2} pairs of a head's elements cannot turn")
    frequencies = [_f32(each / factor) for each in _frequencies(rope, head_dim)[:turning]]
    return Rotary((*frequencies, *[0.0] * (head_dim // 2 - turning)), interleaved=interleaved)


def _f32(number: float) -> float:
    """The number rounded to float32; infinite where it does not fit."""
    return array("f", (number,))[0]


def _frequencies(rope: Configuration, head_dim: int) -> Floats:
    theta = rope.number("rope_theta", above=1)
    # The exponents are float32 in transformers; the power is rounded once here.
    return [_f32(1 / _f32(theta ** _f32(at / head_dim))) for at in range(0, head_dim, 2)]


def _default(frequencies: Floats, rope: Configuration, context_length: int) -> tuple[Floats, float]:
    return frequencies, 1.0


def _linear(frequencies: Floats, rope: Configuration, context_length: int) -> tuple[Floats, float]:
    """Positions are divided by a factor."""
    factor = _f32(rope.number("factor", above=0))
    return [_f32(each / factor) for each in frequencies], 1.0


def _llama3(frequencies: Floats, rope: Configuration, context_length: int) -> tuple[Floats, float]:
    """Llama 3.1: long wavelengths are stretched by a factor, short ones are kept, and those between are mixed."""
    factor = _f32(rope.number("factor", above=0))
    low = rope.number("low_freq_factor", above=0)
    high = rope.number("high_freq_factor", above=low)
    trained = rope.integer("original_max_position_embeddings", context_length)
    turn, short, long = _f32(2 * math.pi), _f32(trained / high), _f32(trained / low)

    def scaled(frequency: float) -> float:
        wavelength = _f32(turn / frequency)
        if wavelength < short:
            return frequency
        if wavelength > long:
            return _f32(frequency / factor)
        share_kept = _f32(_f32(_f32(_f32(trained) / wavelength) - _f32(low)) / _f32(high - low))
        stretched = _f32(_f32(_f32(1 - share_kept) * frequency) / factor)
        return _f32(stretched + _f32(share_kept * frequency))

    return [scaled(each) for each in frequencies], 1.0


def _yarn(frequencies: Floats, rope: Configuration, context_length: int) -> tuple[Floats, float]:
    """YaRN, https://arxiv.org/abs/2309.00071: a ramp from kept to stretched frequencies, and a factor on attention."""
    trained = rope.integer("original_max_position_embeddings", context_length)
    factor = rope.number("factor", context_length / trained, above=0)
    theta, pairs = rope.number("rope_theta", above=1), len(frequencies)

    def pair_that_turns(times: float) -> float:
        """The (fractional) index of the pair that turns so many times within the trained context."""
        return 2 * pairs * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(theta))

    first = pair_that_turns(rope.number("beta_fast", 32, above=0))
    last = pair_that_turns(rope.number("beta_slow", 1, above=0))
    if rope.flag("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    width = _f32(last - first or 0.001)

    def scaled(pair: int, frequency: float) -> float:
        ramp = min(max(_f32(_f32(pair - _f32(first)) / width), 0.0), 1.0)
        stretched = _f32(_f32(frequency / _f32(factor)) * ramp)
        return _f32(stretched + _f32(frequency * _f32(1 - ramp)))

    return [scaled(pair, each) for pair, each in enumerate(frequencies)], _yarn_attention(rope, factor)


def _yarn_attention(rope: Configuration, factor: float) -> float:
    def scale(multiplier: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1.0

    if rope.get("attention_factor") is not None:
        return rope.number("attention_factor", above=0)
    one, other = rope.number("mscale", 0.0), rope.number("mscale_all_dim", 0.0)
    return scale(one) / scale(other) if one and other else scale(1.0)


SCALINGS: Mapping[str, Callable[[Floats, Configuration, int], tuple[Floats, float]]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}
