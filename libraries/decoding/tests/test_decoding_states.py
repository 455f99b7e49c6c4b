"""Layers with a convolution or a recurrence: their states are known by name, begin as zeros, and keep their size."""

from __future__ import annotations

import numpy as np
import pytest

from drupe.api import ModelError
from drupe_decoding import CacheName, DecoderFeed, DecoderPorts, Port, cache_name, empty_cache_shape, is_state

SHAPES = {"conv_state": ["batch", 6, 3], "recurrent_state": ["batch", 2, 4, 5]}


def hybrid() -> DecoderPorts:
    """A decoder whose first layer has states, and whose third has keys and values."""
    inputs = [Port("input_ids", "int64"), Port("attention_mask", "int64")]
    inputs += [Port(f"past_key_values.0.{part}", "float32", shape) for part, shape in SHAPES.items()]
    inputs += [Port(f"past_key_values.2.{part}", "float32", ["batch", 2, "past", 8]) for part in ("key", "value")]
    outputs = [
        Port("logits", "float32"),
        *(Port(port.name.replace("past_key_values", "present")) for port in inputs[2:]),
    ]
    return DecoderPorts.of(inputs, outputs)


def test_states_are_known_in_the_dialects_of_exporters() -> None:
    for name in ("past_key_values.7.conv_state", "present.7.conv_state", "past.7.conv", "present.7.conv"):
        assert cache_name(name) == CacheName(7, "conv_state")
    for name in ("past_key_values.7.recurrent_state", "past.7.recurrent", "past_ssm_7", "present.7.recurrent_state"):
        assert cache_name(name) == CacheName(7, "recurrent_state")
    assert is_state("present.0.conv_state") and not is_state("present.0.key") and not is_state("conv_state")


def test_a_state_begins_as_zeros_and_comes_back_as_it_was_given() -> None:
    feed = DecoderFeed(hybrid())
    first = feed.step([5, 6])
    assert first["past_key_values.0.conv_state"].shape == (1, 6, 3)
    assert first["past_key_values.0.recurrent_state"].shape == (1, 2, 4, 5)
    assert first["past_key_values.2.key"].shape == (1, 2, 0, 8)
    assert not any(first[f"past_key_values.0.{part}"].any() for part in SHAPES)
    feed.keep({name: np.ones(1) for name in feed.ports.outputs})
    second = feed.step([7])
    assert second["past_key_values.0.recurrent_state"].all()
    assert second["attention_mask"].shape == (1, 3)


def test_a_state_of_open_size_is_an_error() -> None:
    for shape in (["batch", "channels", 3], None):
        with pytest.raises(ModelError, match="does not fix its sizes"):
            empty_cache_shape(Port("past_key_values.0.conv_state", "float32", shape))
