"""Decoder: a package's graph, asked for the logits of every token, a few positions at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import Context, Model, ModelError, Session
from drupe_onnx import OnnxPackage, ir, write_twin

PAST, PRESENT = "past_key_values.", "present."
FEEDS = ("input_ids", "attention_mask", "position_ids")


class Decoder:
    """An open decoder and the key-value caches of the tokens that it has taken. A context manager.

    vocabulary: how many logits a token has.
    """

    def __init__(self, model: Model, name: str, context: Context) -> None:
        """Open the model's twin with all logits, which is written to the folder `name` of the context's scratch."""
        twin = write_twin(model, context.scratch / name)
        assert isinstance(twin.payload, OnnxPackage)
        graph = twin.payload.components["model"].graph
        self._inputs = {value.name or "": value for value in graph.inputs}
        self._caches = {name: name.replace(PAST, PRESENT, 1) for name in self._inputs if name.startswith(PAST)}
        outputs = {value.name: value for value in graph.outputs}
        _refuse_what_is_no_decoder(model, set(self._inputs), {name or "" for name in outputs}, self._caches)
        self.vocabulary = _size(outputs["logits"], 2) or _configured(model, "vocab_size")
        self._empty = {name: self._without_tokens(self._inputs[name], model) for name in self._caches}
        self._session: Session = context.open(twin)
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self._past = dict(self._empty)
        self._length = 0

    def logits(self, tokens: Sequence[int]) -> NDArray[Any]:
        """Take `tokens` behind those before; the logits of each of them: [tokens, vocabulary]."""
        self._length += len(tokens)
        feeds: dict[str, NDArray[Any]] = {
            "input_ids": np.array([tokens]),
            "attention_mask": np.ones((1, self._length)),
            "position_ids": np.arange(self._length - len(tokens), self._length)[None],
        }
        typed = {
            name: values.astype(_dtype(self._inputs[name])) for name, values in feeds.items() if name in self._inputs
        }
        results = self._session.run({**typed, **self._past}, ["logits", *self._caches.values()])
        self._past = {name: results[present] for name, present in self._caches.items()}
        logits: NDArray[Any] = results["logits"][0]
        if len(logits) != len(tokens):
            raise ModelError(
                "the graph gives the last token's logits only, and does not mark what drops the others",
                cure="make the package again with --all-logits",
            )
        return logits

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _without_tokens(self, cache: ir.Value, model: Model) -> NDArray[Any]:
        """A cache of no tokens: [1, heads, 0, head size]."""
        heads = _size(cache, 1) or _configured(model, "decoder", "num_key_value_heads")
        head_size = _size(cache, 3) or _configured(model, "decoder", "head_size")
        return np.zeros((1, heads, 0, head_size), _dtype(cache))


def home(model: Model) -> Path:
    """The folder that a model lies in, also where one of its files is named."""
    return model.location if model.location.is_dir() else model.location.parent


def _refuse_what_is_no_decoder(model: Model, inputs: set[str], outputs: set[str], caches: dict[str, str]) -> None:
    strange = sorted(name for name in inputs if name not in FEEDS and name not in caches)
    missing = sorted({"logits", *caches.values()} - outputs)
    if "input_ids" not in inputs or not caches or strange or missing:
        detail = (
            f"nothing is known of '{strange[0]}'" if strange else f"it lacks {missing[0] if missing else 'a cache'}"
        )
        raise ModelError(f"quality is measured of decoders with a key-value cache: {detail}", where=model.location)


def _dtype(value: ir.Value) -> np.dtype[Any]:
    assert value.dtype is not None
    if value.dtype == ir.DataType.BFLOAT16:
        raise ModelError(
            f"'{value.name}' is bfloat16, which runtimes do not take from outside",
            cure="measure a float16 or float32 package of the same weights",
        )
    return value.dtype.numpy()


def _size(value: ir.Value, axis: int) -> int | None:
    """A size that the graph tells."""
    found = value.shape[axis] if value.shape is not None and len(value.shape) > axis else None
    return found if isinstance(found, int) else None


def _configured(model: Model, *keys: str) -> int:
    """A size that the graph leaves open, from genai_config.json."""
    path = home(model) / "genai_config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["model"]
        for key in keys:
            found = found[key]
        return int(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"neither the graph nor genai_config.json tells {'.'.join(keys)}", where=path) from error
