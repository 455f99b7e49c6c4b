"""Rotary position embeddings: their frequencies, from config.json.

The arithmetic is that of float32, as in transformers, but without numpy, which takes longer to import than all of
`drupe inspect`. Python's floats are doubles. A sum, product or quotient of two float32 numbers that is computed in
double and then rounded equals the result of float32 arithmetic.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence

from drupe.api import ModelError, counted, replace
from drupe_checkpoints import Configuration
from drupe_model_builder.parts.rotary import DynamicNtk, LongRope, Rotary

WIDEST = 1 << 16  # elements of a head; known models have at most 512

PROPORTIONAL = "proportional"

Floats = Sequence[float]


def rotary(rope: Configuration, head_dim: int, stated: int, *, interleaved: bool = False) -> Rotary:
    """The rotary embedding with these rope parameters. `partial_rotary_factor` is the share of a head that it rotates.

    stated: `max_position_embeddings`. Frequencies are float32 numbers, as transformers computes them. Raises ModelError
    for a type that is not supported and for parameters that give no frequencies.
    """
    refuse_unknown_type(rope)
    kind, share = rope.text("rope_type"), rope.number("partial_rotary_factor", above=0)
    if head_dim > WIDEST:
        raise rope.mistake(f"head_dim = {head_dim} is more than {WIDEST}")
    if kind == PROPORTIONAL:
        return _proportional(rope, head_dim, interleaved)
    width = int(head_dim * share)
    if width % 2 or not 0 < width <= head_dim:
        part = "" if share == 1 else f" and partial_rotary_factor = {share:g}"
        raise rope.mistake(
            f"head_dim = {head_dim}{part}: {width} elements cannot be rotated; it must be an even number up to head_dim"
        )
    try:
        found = SCALINGS[kind](_frequencies(rope, width), rope, stated)
        if _usable(found):
            return replace(found, interleaved=interleaved)
    except (ArithmeticError, ValueError):  # a division by zero, or the logarithm of it
        pass
    raise rope.mistake(f"the rotary parameters give no usable frequencies: {dict(rope)}")


def refuse_unknown_type(rope: Configuration) -> None:
    """Raise ModelError for a `rope_type` that is not supported."""
    kind = rope.text("rope_type")
    if kind not in (*SCALINGS, PROPORTIONAL):
        raise ModelError(
            f"rotary embeddings of type '{kind}' (rope_type in {rope.path.name}) are not supported; supported: "
            + ", ".join((*SCALINGS, PROPORTIONAL)),
            where=rope.path,
            cure="correct rope_type if it is misspelt; otherwise the model needs a plugin that supports it",
        )


def _usable(found: Rotary) -> bool:
    frequencies = found.frequencies
    if isinstance(found.longer, LongRope):
        frequencies += found.longer.frequencies
    return all(0 < each < math.inf for each in frequencies) and 0 < found.scaling < math.inf


def _proportional(rope: Configuration, head_dim: int, interleaved: bool) -> Rotary:
    """The whole head takes part, but only the first pairs turn: `partial_rotary_factor` is their share."""
    share = rope.number("partial_rotary_factor", above=0)
    turning = int(share * head_dim // 2)
    factor = _f32(rope.number("factor", 1.0, above=0))
    if head_dim % 2 or not 0 < turning <= head_dim // 2:
        pairs = counted(head_dim // 2, "pair")
        raise rope.mistake(
            f"head_dim = {head_dim} and partial_rotary_factor = {share:g}: {turning} of {pairs} cannot turn"
        )
    frequencies = [_f32(each / factor) for each in _frequencies(rope, head_dim)[:turning]]
    return Rotary((*frequencies, *[0.0] * (head_dim // 2 - turning)), interleaved=interleaved)


def _f32(number: float) -> float:
    """The number rounded to float32; infinite where it does not fit."""
    return array("f", (number,))[0]


def _powers(rope: Configuration, head_dim: int) -> Floats:
    """For each pair: theta to the power of its exponent, the reciprocal of its plain frequency."""
    theta = rope.number("rope_theta", above=1)
    # The exponents are float32 in transformers; the power is rounded once here.
    return [_f32(theta ** _f32(at / head_dim)) for at in range(0, head_dim, 2)]


def _frequencies(rope: Configuration, head_dim: int) -> Floats:
    return [_f32(1 / power) for power in _powers(rope, head_dim)]


def _default(frequencies: Floats, rope: Configuration, stated: int) -> Rotary:
    return Rotary(tuple(frequencies))


def _linear(frequencies: Floats, rope: Configuration, stated: int) -> Rotary:
    """Positions are divided by a factor."""
    factor = _f32(rope.number("factor", above=0))
    return Rotary(tuple(_f32(each / factor) for each in frequencies))


def _llama3(frequencies: Floats, rope: Configuration, stated: int) -> Rotary:
    """Llama 3.1: long wavelengths are stretched by a factor, short ones are kept, and those between are mixed.

    Llama 4 Scout has none between: both limits are one.
    """
    factor = _f32(rope.number("factor", above=0))
    low = rope.number("low_freq_factor", above=0)
    high = rope.number("high_freq_factor", above=0)
    if high < low:
        raise rope.mistake(f"high_freq_factor = {high:g} is less than low_freq_factor = {low:g}")
    trained = rope.integer("original_max_position_embeddings", stated)
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

    return Rotary(tuple(scaled(each) for each in frequencies))


def _yarn(frequencies: Floats, rope: Configuration, stated: int) -> Rotary:
    """YaRN, https://arxiv.org/abs/2309.00071: a ramp from kept to stretched frequencies, and a factor on attention."""
    trained = rope.integer("original_max_position_embeddings", stated)
    factor = rope.number("factor", stated / trained, above=0)
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

    found = tuple(scaled(pair, each) for pair, each in enumerate(frequencies))
    return Rotary(found, _yarn_attention(rope, factor))


def _yarn_attention(rope: Configuration, factor: float) -> float:
    def scale(multiplier: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1.0

    if rope.get("attention_factor") is not None:
        return rope.number("attention_factor", above=0)
    one, other = rope.number("mscale", 0.0), rope.number("mscale_all_dim", 0.0)
    return scale(one) / scale(other) if one and other else scale(1.0)


def _dynamic(frequencies: Floats, rope: Configuration, stated: int) -> Rotary:
    """Dynamic NTK: unchanged up to the trained length, which is the stated one; beyond, theta grows with the length."""
    if len(frequencies) < 2:
        raise ValueError("the growth of theta divides by the number of rotated elements less two")
    factor = rope.number("factor", above=0)
    return Rotary(tuple(frequencies), longer=DynamicNtk(stated, rope.number("rope_theta", above=1), factor))


def _longrope(frequencies: Floats, rope: Configuration, stated: int) -> Rotary:
    """LongRoPE, https://arxiv.org/abs/2402.13753: each frequency has a divisor, another one in longer sequences."""
    trained = rope.integer("original_max_position_embeddings", stated)
    factor = rope.number("factor", stated / trained, above=0)

    def divided(key: str) -> tuple[float, ...]:
        divisors = rope.numbers(key)
        if len(divisors) != len(frequencies):
            raise rope.mistake(
                f"{key} has {counted(len(divisors), 'number')} instead of {len(frequencies)}, one for each pair"
            )
        powers = _powers(rope, 2 * len(frequencies))
        return tuple(_f32(1 / _f32(_f32(divisor) * power)) for divisor, power in zip(divisors, powers, strict=True))

    attention = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(trained))
    attention = rope.number("attention_factor", attention, above=0)
    return Rotary(divided("short_factor"), attention, LongRope(trained, divided("long_factor")))


SCALINGS: Mapping[str, Callable[[Floats, Configuration, int], Rotary]] = {
    "default": _default,
    "dynamic": _dynamic,
    "linear": _linear,
    "llama3": _llama3,
    "longrope": _longrope,
    "yarn": _yarn,
}
