"""Which caches and states onnxruntime-genai carries, and what is said of those that it does not."""

from __future__ import annotations

import re

import pytest

from drupe_decoding import DecoderPorts, Port
from drupe_onnxruntime.genai.carried_states import not_carried

CACHE, NARROW = ["b", 2, "past", 16], ["b", 2, "past", 8]
MATRIX, WINDOW = ["b", 2, 16, 8], ["b", 32, 3]


def decoder(**caches: list[object]) -> DecoderPorts:
    """A decoder with these caches: "key_0" stands for past_key_values.0.key."""
    named = {".".join(reversed(name.rsplit("_", 1))): shape for name, shape in caches.items()}
    pasts = [Port(f"past_key_values.{name}", "float32", shape) for name, shape in named.items()]
    return DecoderPorts.of([Port("input_ids"), *pasts], [Port("logits"), *(Port(f"present.{name}") for name in named)])


@pytest.mark.parametrize(
    "caches",
    [
        {"key_0": CACHE, "value_0": CACHE, "key_1": NARROW, "value_1": NARROW},
        {"key_0": ["b", None, "past", None], "value_0": CACHE},
        {"conv_state_0": WINDOW, "key_1": CACHE, "value_1": CACHE},
        {"conv_state_0": WINDOW, "recurrent_state_0": MATRIX, "key_1": CACHE, "value_1": CACHE},
        {"conv_state_0": WINDOW, "recurrent_state_0": MATRIX, "key_0": NARROW, "value_0": NARROW, "key_1": CACHE,
         "value_1": CACHE},
    ],
)  # fmt: skip
def test_onnxruntime_genai_carries_these(caches: dict[str, list[object]]) -> None:
    assert not_carried(decoder(**caches)) is None


@pytest.mark.parametrize(
    ("caches", "reason"),
    [
        ({"key_0": CACHE, "value_0": NARROW}, "2 heads of 16 elements for keys and 2 heads of 8 elements for values"),
        ({"key_0": CACHE}, "layer 0 has keys and no values"),
        ({"recurrent_state_1": MATRIX, "key_0": CACHE, "value_0": CACHE}, "layer 1 has a recurrent state and none of"),
        (
            {"conv_state_0": WINDOW, "conv_state_1": ["b", 16, 3]},
            r"the convolution states have the shape \[32, 3\] in layer 0 and \[16, 3\] in layer 1",
        ),
        (
            {"conv_state_0": WINDOW, "key_1": CACHE, "value_1": CACHE, "key_2": NARROW, "value_2": NARROW},
            "the keys have the shape",
        ),
        (
            {"self.key_0": CACHE, "self.value_0": CACHE, "cross.key_0": CACHE, "cross.value_0": CACHE},
            "its keys are named past_key_values.%d.cross.key, past_key_values.%d.self.key",
        ),
    ],
)
def test_the_first_state_that_it_does_not_carry_is_the_reason(caches: dict[str, list[object]], reason: str) -> None:
    found = not_carried(decoder(**caches))
    assert found is not None and re.search(reason, found), found
