"""DecoderDescription: the decoder's settings in a graph's metadata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from drupe.api import Record, asdict
from drupe_onnx.metadata_records import record_from

if TYPE_CHECKING:
    from drupe_onnx import ir

DECODER_KEY = "drupe.decoder"
"""The key of a model's metadata that holds the description, as JSON."""


class DecoderDescription(Record):
    """The settings of a decoder that a runtime's configuration needs.

    model_type: as in the checkpoint's config.json. activations, kv_dtype: element types ("float32").
    bos, eos, pad: token numbers.
    """

    model_type: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    activations: str
    kv_dtype: str
    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None


def describe_decoder(model: ir.Model, description: DecoderDescription) -> None:
    """Put the description into a model's metadata."""
    model.metadata_props[DECODER_KEY] = json.dumps(asdict(description))


def decoder_of(model: ir.Model) -> DecoderDescription | None:
    """The description in a model's metadata; None where there is none. Raises ModelError for a broken one."""
    text = model.metadata_props.get(DECODER_KEY)
    return None if text is None else decoder_from(text)


def decoder_from(text: str) -> DecoderDescription:
    """The description in a graph's metadata; keys that a later version has added are ignored."""
    return record_from(text, DecoderDescription, f"its decoder ({DECODER_KEY})")
