"""Decoder: a graph with a key-value cache, fed step by step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import CheckFailed, ModelError

ELEMENT_TYPES = {
    "tensor(float)": 1,
    "tensor(uint8)": 2,
    "tensor(int8)": 3,
    "tensor(int32)": 6,
    "tensor(int64)": 7,
    "tensor(float16)": 10,
    "tensor(bfloat16)": 16,
}
"""ONNX's numbers for element types; numpy has no bfloat16, so caches are made by number."""
_NUMPY = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Decoder:
    """Takes tokens, keeps the caches, gives the logits of the last token. One sequence, batch 1."""

    def __init__(self, module: Any, session: Any, head_size: int | None = None) -> None:
        self._ort = module
        self._session = session
        self._inputs = {value.name: value for value in session.get_inputs()}
        outputs = [value.name for value in session.get_outputs()]
        self._caches = _match_caches(self._inputs, outputs)
        if "input_ids" not in self._inputs or "logits" not in outputs or not self._caches:
            raise ModelError("the graph does not generate text: it lacks input_ids, logits, or a key-value cache")
        self._head_size = head_size
        self._past: dict[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self.length = 0
        self._past = {name: self._empty(self._inputs[name]) for name in self._caches}

    def _empty(self, value: Any) -> Any:
        """A cache of no tokens: [1, heads, 0, head size]. A graph names what varies, and gives the rest as numbers."""
        sizes = [size if isinstance(size, int) else None for size in value.shape]
        heads, head_size = (sizes[1], sizes[3] or self._head_size) if len(sizes) == 4 else (None, None)
        if heads is None or head_size is None:
            raise ModelError(f"the cache '{value.name}' is {value.shape}, which does not tell its heads and their size")
        return self._ort.OrtValue.ortvalue_from_shape_and_type([1, heads, 0, head_size], ELEMENT_TYPES[value.type])

    def step(self, tokens: Sequence[int]) -> NDArray[np.floating]:
        """Take `tokens` behind those before; the logits of the last one: [vocabulary]."""
        self.length += len(tokens)
        feeds = dict(self._past)
        if "attention_mask" in self._inputs:
            feeds["attention_mask"] = self._integers("attention_mask", np.ones(self.length))
        if "position_ids" in self._inputs:
            feeds["position_ids"] = self._integers("position_ids", np.arange(self.length - len(tokens), self.length))
        feeds["input_ids"] = self._integers("input_ids", np.asarray(tokens))
        if unfed := sorted(set(self._inputs) - set(feeds)):
            raise ModelError(f"nothing is known to feed to the graph's input '{unfed[0]}'")
        names = ["logits", *self._caches.values()]
        try:
            logits, *presents = self._session.run_with_ort_values(names, feeds)
        except Exception as error:  # onnxruntime's exceptions have no class of their own but Exception
            raise CheckFailed(f"onnxruntime cannot run the model: {error}") from error
        self._past = dict(zip(self._caches, presents, strict=True))
        last: NDArray[np.floating] = logits.numpy()[0, -1]
        return last

    def _integers(self, name: str, values: NDArray[Any]) -> Any:
        dtype = _NUMPY.get(self._inputs[name].type, np.int64)
        return self._ort.OrtValue.ortvalue_from_numpy(values.astype(dtype)[None])


def _match_caches(inputs: dict[str, Any], outputs: Sequence[str]) -> dict[str, str]:
    """Which output is the next value of which cache input: those of the same layer and the same part, key or value."""

    def part(name: str) -> tuple[str, str] | None:
        number = re.search(r"\d+", name)
        words = [word for word in ("key", "value") if word in name]
        return (number.group(), max(words, key=name.rfind)) if number and words else None

    presents = {place: name for name in outputs if (place := part(name))}
    pasts = {name: place for name in inputs if (place := part(name))}
    if missing := [name for name, place in pasts.items() if place not in presents]:
        raise ModelError(f"the graph has no output for the cache '{missing[0]}'")
    return {name: presents[place] for name, place in pasts.items()}
