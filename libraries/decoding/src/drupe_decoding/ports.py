"""Ports: which input and output of a decoder's graph is which, by name, element type and shape.

Names differ between exporters. Tokens, mask, positions and logits have the names of Hugging Face's models. A key-value
cache is known by the word past, present or cache, its layer's number, and the word key or value: past_key_values.3.key
and present.3.key (optimum, onnxruntime-genai, Drupe), past_key_3 and present_key_3 (OpenVINO, onnxruntime), k_cache_3.
Layers with a convolution or a recurrence have states of a fixed size instead: past_key_values.3.conv_state and
past_key_values.3.recurrent_state (onnxruntime-genai, Drupe), past.3.conv and past.3.recurrent, past_ssm_3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from drupe.api import ModelError, Record, field

TOKENS, MASK, POSITIONS, LOGITS = "input_ids", "attention_mask", "position_ids", "logits"
HIDDEN_STATES = "last_hidden_state"
"""The output of a decoder without a head, and of encoders."""
PLAIN = (TOKENS, MASK, POSITIONS)
"""The inputs of a decoder that are not caches."""
KEY, VALUE = "key", "value"
CONVOLUTION, RECURRENT = "conv_state", "recurrent_state"
STATES = (CONVOLUTION, RECURRENT)
"""The parts of a layer's cache whose size does not grow with the text: before the first token they are zeros."""
_PART_OF = {"k": KEY, "key": KEY, "keys": KEY, "v": VALUE, "value": VALUE, "values": VALUE}
_STATE_OF = {"conv": CONVOLUTION, "recurrent": RECURRENT, "ssm": RECURRENT}
_MARKS = frozenset({"past", "present", "cache"})
"""One of these words is in the name of every cache."""
_DIRECTION = _MARKS | {"in", "out", "new", "layer", "layers", "state", "states"}
"""Words that do not distinguish the caches of a layer."""


class Port(Record):
    """An input or output of a graph.

    element_type: "float32", "float16", "int64", ...; None where it is not known.
    shape: a number for each size that is fixed, anything else for one that varies; None where it is not known.
    """

    name: str
    element_type: str | None = None
    shape: Sequence[object] | None = None

    def size(self, axis: int) -> int | None:
        """A size that is fixed; None for one that varies or is not known."""
        found = self.shape[axis] if self.shape is not None and axis < len(self.shape) else None
        return found if isinstance(found, int) else None


class CacheName(Record):
    """The parsed name of a cache. part: "key", "value", or one of STATES. rest: other words, such as "cross"."""

    layer: int
    part: str
    rest: tuple[str, ...] = ()


def cache_name(name: str) -> CacheName | None:
    """The parsed name of a key-value cache or a state, past or present; None for any other name."""
    words = re.findall(r"[a-z]+|\d+", name.lower())
    numbers = [word for word in words if word.isdigit()]
    parts = [_STATE_OF[word] for word in words if word in _STATE_OF]
    parts = parts or [_PART_OF[word] for word in words if word in _PART_OF]
    if not numbers or not parts or _MARKS.isdisjoint(words):
        return None
    known = {*_DIRECTION, *_PART_OF, *_STATE_OF, numbers[0]}
    return CacheName(int(numbers[0]), parts[-1], tuple(word for word in words if word not in known))


class CacheSizes(Record):
    """Sizes of a cache that its graph may leave open: the number of heads, and the values of a head."""

    heads: int | None = None
    head_size: int | None = None


def empty_cache_shape(cache: Port, rows: int = 1, sizes: CacheSizes | None = None) -> tuple[int, ...]:
    """[rows, heads, 0, head size]: the shape of an empty cache. sizes: for sizes that the graph leaves open.

    A state has the sizes of the graph: [rows, ...]. Raises ModelError where neither the graph nor `sizes` gives a size.
    """
    if is_state(cache.name):
        return rows, *_sizes_of_state(cache)
    sizes = sizes or CacheSizes()
    heads, head_size = cache.size(1) or sizes.heads, cache.size(3) or sizes.head_size
    if cache.shape is None or len(cache.shape) != 4 or heads is None or head_size is None:
        raise ModelError(f"the shape {cache.shape} of the cache '{cache.name}' does not fix the heads and their size")
    return rows, heads, 0, head_size


def unknown_input(name: str) -> ModelError:
    """The error for an input that is none of tokens, mask, positions, caches and states."""
    words = re.findall(r"[a-z]+|\d+", name.lower())
    if _MARKS.isdisjoint(words):
        return ModelError(
            f"the graph's input '{name}' is unknown: no runtime of decoders makes a value for it",
            cure=f"export the decoder with no other inputs than {', '.join(PLAIN)} and its caches",
        )
    parts = sorted({*_PART_OF, *_STATE_OF})
    return ModelError(
        f"the graph's input '{name}' is a state that no runtime carries from call to call",
        cure="give a cache the number of its layer and one of these words, by what it holds, as in "
        f"past_key_values.0.key: {', '.join(parts)}",
    )


def is_state(name: str) -> bool:
    """Whether this is the name of a state, whose size does not grow."""
    place = cache_name(name)
    return place is not None and place.part in STATES


def _sizes_of_state(state: Port) -> list[int]:
    """The sizes of a state behind the rows."""
    found = [state.size(axis) for axis in range(1, len(state.shape or ()))]
    sizes = [size for size in found if size is not None]
    if not sizes or len(sizes) < len(found):
        raise ModelError(f"the shape {state.shape} of the state '{state.name}' does not fix its sizes")
    return sizes


class Cache(Record):
    """A key-value cache or a state: what goes in as `past` comes out as the output `present`, with the new tokens."""

    past: Port
    present: str
    place: CacheName


class DecoderPorts(Record):
    """The inputs and outputs of a decoder. plain: its inputs that are not caches, by name, the tokens first."""

    plain: Mapping[str, Port]
    caches: Sequence[Cache]
    logits: Port = field(default_factory=lambda: Port(LOGITS))

    @classmethod
    def of(cls, inputs: Iterable[Port], outputs: Iterable[Port]) -> DecoderPorts:
        """The ports of a graph. Raises ModelError for a graph that is not a decoder, or has an unknown input."""
        named, results = {port.name: port for port in inputs}, {port.name: port for port in outputs}
        pasts = {name: place for name in named if name not in PLAIN and (place := cache_name(name))}
        for name, there in ((TOKENS, TOKENS in named), (LOGITS, LOGITS in results), ("a key-value cache", bool(pasts))):
            if not there:
                raise ModelError(
                    f"the graph is not a decoder with a key-value cache: it lacks {name}",
                    cure="choose a model that generates text; a graph for another task is packaged by another pass, or "
                    "needs none (drupe passes)",
                )
        if unfed := [name for name in named if name not in PLAIN and name not in pasts]:
            raise unknown_input(unfed[0])
        presents = {place: name for name in results if (place := cache_name(name))}
        if missing := [name for name, place in pasts.items() if place not in presents]:
            raise ModelError(f"the graph has no output for the cache '{missing[0]}'")
        return cls(
            {name: named[name] for name in PLAIN if name in named},
            [Cache(named[name], presents[place], place) for name, place in pasts.items()],
            results[LOGITS],
        )

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs that a step needs: the logits, and the caches in their order."""
        return [self.logits.name, *(cache.present for cache in self.caches)]
