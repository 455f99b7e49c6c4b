"""Recognising a decoder's inputs by the names of several exporters, and feeding them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from drupe.api import ModelError
from drupe_decoding import CacheName, CacheSizes, DecoderFeed, DecoderPorts, Port, cache_name, input_array

LAYERS, HEADS, SIZE = 2, 3, 4
DIALECTS = {
    "optimum": ("past_key_values.{}.{}", "present.{}.{}"),
    "openvino": ("past_{1}_{0}", "present_{1}_{0}"),
    "plain": ("past_key_values_{}_{}", "present_key_values_{}_{}"),
    "torch": ("past_key_values_{1}_cache_{0}", "present_{1}_cache_{0}"),
}


def ports(
    dialect: str = "optimum",
    plain: Sequence[str] = ("input_ids", "attention_mask", "position_ids"),
    sizes: tuple[int | None, int | None] = (HEADS, SIZE),
    element: str = "float32",
) -> DecoderPorts:
    past, present = DIALECTS[dialect]
    places = [(layer, part) for layer in range(LAYERS) for part in ("key", "value")]
    shape = ["batch", sizes[0], "past_sequence", sizes[1]]
    inputs = [Port(name, "int64", ["batch", "sequence"]) for name in plain]
    inputs += [Port(past.format(*place), element, shape) for place in places]
    outputs = [Port("logits", element), *(Port(present.format(*place), element) for place in reversed(places))]
    return DecoderPorts.of(inputs, outputs)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_caches_are_found_in_every_dialect_and_in_any_order(dialect: str) -> None:
    past, present = DIALECTS[dialect]
    found = ports(dialect)
    assert [(cache.past.name, cache.present) for cache in found.caches] == [
        (past.format(layer, part), present.format(layer, part)) for layer in range(LAYERS) for part in ("key", "value")
    ]
    assert found.outputs == ["logits", *(cache.present for cache in found.caches)]


def test_other_names_are_not_taken_for_caches() -> None:
    for name in ("input_ids", "logits", "hidden_3", "encoder.layer.3.key", "past_3", "past_key_values"):
        assert cache_name(name) is None
    assert cache_name("past_key_values.10.value") == CacheName(10, "value")


def test_caches_of_encoder_and_decoder_are_distinguished() -> None:
    assert cache_name("past_key_values.0.decoder.key") == cache_name("present.0.decoder.key")
    assert cache_name("past_key_values.0.decoder.key") != cache_name("present.0.encoder.key")
    assert cache_name("past_key_self_0") != cache_name("past_key_cross_0")


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (["input_ids"], ["logits"], "it lacks a key-value cache"),
        (["input_ids", "past_key_0"], ["present_key_0"], "it lacks logits"),
        (["inputs_embeds", "past_key_0"], ["logits", "present_key_0"], "it lacks input_ids"),
        (["input_ids", "past_key_0"], ["logits"], "no output for the cache 'past_key_0'"),
        (["input_ids", "pixels", "past_key_0"], ["logits", "present_key_0"], "input 'pixels' is unknown"),
        (
            ["input_ids", "past_key_0", "past.0.token_shift"],
            ["logits", "present_key_0"],
            "'past.0.token_shift' is a state that no runtime carries",
        ),
    ],
)
def test_the_error_for_a_graph_that_is_not_a_decoder_says_what_it_lacks(
    inputs: list[str], outputs: list[str], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        DecoderPorts.of(map(Port, inputs), map(Port, outputs))


def test_each_step_continues_after_the_tokens_of_the_earlier_steps() -> None:
    """The decoder is a toy whose caches hold its tokens, so the caches show what it was fed."""
    feed = DecoderFeed(ports())
    assert [len(step(feed, tokens)) for tokens in ([5, 6, 7], [8], [9])] == [3, 1, 1]
    assert feed.length == 5
    given = feed.step([10])
    assert given["past_key_values.1.value"][0, 0, :, 0].tolist() == [5, 6, 7, 8, 9]
    assert given["attention_mask"].tolist() == [[1] * 6]
    assert given["position_ids"].tolist() == [[5]]
    feed.reset()
    first = feed.step([1, 2])
    assert first["past_key_values.0.key"].shape == (1, HEADS, 0, SIZE)
    assert first["position_ids"].tolist() == [[0, 1]]


def step(feed: DecoderFeed, tokens: list[int]) -> NDArray[Any]:
    """A step of the toy. Its logits are the positions of its tokens."""
    given = feed.step(tokens)
    new = np.broadcast_to(given["input_ids"].astype(np.float32)[:, None, :, None], (1, HEADS, len(tokens), SIZE))
    results = {cache.present: np.concatenate([given[cache.past.name], new], axis=2) for cache in feed.ports.caches}
    assert all(array.shape[2] == given["attention_mask"].shape[1] for array in results.values())
    feed.keep({"logits": given["position_ids"], **results})
    positions: NDArray[Any] = given["position_ids"][0]
    return positions


def test_only_the_inputs_of_the_graph_are_fed_in_their_declared_types() -> None:
    feed = DecoderFeed(ports(plain=["input_ids"], element="float16"))
    given = feed.step([1])
    assert set(given) == {"input_ids", *(cache.past.name for cache in feed.ports.caches)}
    assert given["past_key_values.0.key"].dtype == np.float16
    mask = input_array(Port("attention_mask", "int32"), np.array([[1, 2]]), past=3)
    assert mask.dtype == np.int32 and mask.shape == (1, 5)


def test_sequences_of_equal_length_are_fed_as_one_batch() -> None:
    tokens = np.array([[1, 2, 3], [4, 5, 6]])
    assert input_array(Port("position_ids", "int64"), tokens).tolist() == [[0, 1, 2]] * 2
    cache = Port("past_key_0", "float32", (None, HEADS, None, SIZE))
    assert input_array(cache, tokens).shape == (2, HEADS, 0, SIZE)


def test_sizes_that_the_graph_does_not_fix_come_from_the_caller() -> None:
    with pytest.raises(ModelError, match="does not fix the heads"):
        DecoderFeed(ports(sizes=(HEADS, None)))
    feed = DecoderFeed(ports(sizes=(None, None)), CacheSizes(HEADS, SIZE))
    assert feed.step([1])["past_key_values.0.key"].shape == (1, HEADS, 0, SIZE)


def test_empty_caches_can_be_made_by_the_runtime() -> None:
    made: list[tuple[str, tuple[int, ...]]] = []

    def empty(port: Port, shape: tuple[int, ...]) -> str:
        made.append((port.name, shape))
        return "on the device"

    feed = DecoderFeed(ports(element="bfloat16"), empty=empty)
    assert made[0] == ("past_key_values.0.key", (1, HEADS, 0, SIZE))
    assert feed.step([1])["past_key_values.0.key"] == "on the device"


@pytest.mark.parametrize("element", ["bfloat16", None, "float8e4m3fn"])
def test_element_types_that_runtimes_do_not_accept_are_refused(element: str | None) -> None:
    with pytest.raises(ModelError, match="runtimes take no such arrays"):
        input_array(Port("past_key_0", element, (None, HEADS, None, SIZE)), np.array([[1]]))
