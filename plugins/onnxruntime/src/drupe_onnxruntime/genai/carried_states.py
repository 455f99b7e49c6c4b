"""Carried: which caches and states of a decoder onnxruntime-genai can carry from one call to the next.

The rules are those of onnxruntime-genai 0.18, each seen with a small graph.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from drupe.api import counted
from drupe_decoding import CONVOLUTION, KEY, RECURRENT, STATES, VALUE

if TYPE_CHECKING:
    from drupe_decoding import Cache, DecoderPorts, Port

WORDS = {KEY: "keys", VALUE: "values", CONVOLUTION: "convolution states", RECURRENT: "recurrent states"}


def not_carried(decoder: DecoderPorts) -> str | None:
    """Why onnxruntime-genai cannot run a decoder: the first state that it does not carry. None where it carries all."""
    layers: dict[int, dict[str, Cache]] = defaultdict(dict)
    for cache in decoder.caches:
        layers[cache.place.layer][cache.place.part] = cache
    return next(itertools.chain(_patterns(decoder), _pairs(layers), _unlike(layers)), None)


def pattern_of(names: Iterable[str]) -> str:
    """The pattern of names with a number for the layer, such as "past_key_values.%d.key". Several are listed."""
    return ", ".join(sorted({re.sub(r"\d+", "%d", name, count=1) for name in names}))


def _patterns(decoder: DecoderPorts) -> Iterator[str]:
    """Names that one pattern does not express: onnxruntime-genai has one for the keys, one for the values, ..."""
    for part, words in WORDS.items():
        caches = [cache for cache in decoder.caches if cache.place.part == part]
        for names in ([cache.past.name for cache in caches], [cache.present for cache in caches]):
            if "," in (patterns := pattern_of(names)):
                yield f"its {words} are named {patterns}, and onnxruntime-genai has one pattern for all"


def _pairs(layers: Mapping[int, Mapping[str, Cache]]) -> Iterator[str]:
    """States of one layer that onnxruntime-genai has in pairs only, or of one shape only."""
    for number, parts in sorted(layers.items()):
        if (KEY in parts) != (VALUE in parts):
            have, lacks = (KEY, VALUE) if KEY in parts else (VALUE, KEY)
            yield f"layer {number} has {WORDS[have]} and no {WORDS[lacks]}, and onnxruntime-genai carries both or none"
        elif KEY in parts:
            of_keys, of_values = _heads(parts[KEY].past), _heads(parts[VALUE].past)
            if of_keys and of_values and of_keys != of_values:
                yield (
                    f"layer {number} has {of_keys} for keys and {of_values} for values, and onnxruntime-genai gives "
                    "both the same"
                )
        if RECURRENT in parts and CONVOLUTION not in parts:
            yield (
                f"layer {number} has a recurrent state and none of a convolution, and onnxruntime-genai carries the "
                "first only beside the second"
            )


def _unlike(layers: Mapping[int, Mapping[str, Cache]]) -> Iterator[str]:
    """What differs in shape from layer to layer: states, and keys beside states of convolutions alone."""
    there = {part for parts in layers.values() for part in parts}
    alike = (*STATES, KEY) if CONVOLUTION in there and RECURRENT not in there else STATES
    for part in alike:
        shapes = {number: tuple(_fixed(parts[part].past)) for number, parts in sorted(layers.items()) if part in parts}
        first = next(iter(shapes), None)
        for number, shape in shapes.items():
            if first is not None and shape != shapes[first]:
                yield (
                    f"the {WORDS[part]} have the shape {list(shapes[first])} in layer {first} and {list(shape)} in "
                    f"layer {number}, and onnxruntime-genai has one for all"
                )


def _fixed(state: Port) -> Iterator[int | None]:
    """The sizes behind the rows; None for one that varies."""
    return (state.size(axis) for axis in range(1, len(state.shape or ())))


def _heads(cache: Port) -> str | None:
    """Heads and their size, in words; None where the graph leaves one of them open."""
    heads, size = cache.size(1), cache.size(3)
    return None if heads is None or size is None else f"{counted(heads, 'head')} of {counted(size, 'element')}"
