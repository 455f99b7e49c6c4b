"""genai_config.json fits the graph, the checkpoint and the target."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from drupe.api import UsageError
from drupe_decoding import DecoderPorts, Port, generation_notices
from drupe_onnxruntime.genai import genai_config
from drupe_onnxruntime.genai.genai_config import PortNames

MIB = 1 << 20


def port_names(*extra: str, past: str = "past_key_values.{}.{}", present: str = "present.{}.{}") -> PortNames:
    places = [(layer, part) for layer in range(12) for part in ("key", "value")]
    inputs = ["input_ids", "attention_mask", *extra, *(past.format(*place) for place in places)]
    outputs = ["logits", *(present.format(*place) for place in places)]
    return genai_config.port_names(DecoderPorts.of(map(Port, inputs), map(Port, outputs)))


def description(**changes: object) -> SimpleNamespace:
    values: dict[str, object] = {
        "model_type": "llama", "hidden_size": 64, "layers": 12, "heads": 4, "kv_heads": 2, "head_dim": 16,
        "vocab_size": 100, "context_length": 2048, "bos": 1, "eos": (2,), "pad": None,
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def document(made: SimpleNamespace, threads: int | None = None) -> dict[str, Any]:
    return genai_config.document(
        made,  # type: ignore[arg-type]
        port_names(),
        filename="model.onnx",
        provider_options=[],
        generation={},
        length=64,
        shares_cache=True,
        threads=threads,
    )


def test_inputs_and_outputs_have_the_names_of_the_graph() -> None:
    names = port_names()
    assert names.layers == 12
    assert names.inputs == {
        "input_ids": "input_ids",
        "attention_mask": "attention_mask",
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    }
    assert names.outputs == {
        "logits": "logits",
        "present_key_names": "present.%d.key",
        "present_value_names": "present.%d.value",
    }


def test_position_ids_are_named_only_if_the_graph_has_them() -> None:
    assert "position_ids" not in port_names().inputs
    assert port_names("position_ids").inputs["position_ids"] == "position_ids"


def test_other_names_of_caches_are_written() -> None:
    names = port_names(past="past_{1}_{0}", present="present_{1}_{0}")
    assert names.inputs["past_key_names"] == "past_key_%d"
    assert names.outputs["present_value_names"] == "present_value_%d"


@pytest.mark.parametrize(("architecture", "expected"), [("qwen3", "qwen3"), ("mistral", "mistral"), ("new", "decoder")])
def test_an_architecture_that_the_runtime_does_not_know_becomes_a_generic_decoder(
    architecture: str, expected: str
) -> None:
    assert genai_config.model_type(architecture) == expected


def test_max_length_is_the_requested_one() -> None:
    assert genai_config.max_length(100, 2048, 1, 0, None) == 100


def test_the_error_for_max_length_beyond_the_context_names_the_limit() -> None:
    with pytest.raises(UsageError, match="2048"):
        genai_config.max_length(4096, 2048, 1, 0, None)


def test_the_default_max_length_is_at_most_the_context() -> None:
    assert genai_config.max_length(None, 512, 1, 0, None) == 512


def test_the_cache_stays_within_a_quarter_of_the_memory_that_the_weights_leave() -> None:
    per_token = 128 << 10
    length = genai_config.max_length(None, 131072, per_token, 600 * MIB, 1000 * MIB)
    assert length == 768
    assert length * per_token <= (1000 - 600) * MIB / 4


def test_a_device_with_plenty_of_memory_gets_the_default_and_not_the_context() -> None:
    assert genai_config.max_length(None, 131072, 1 << 10, 0, 64 << 30) == genai_config.DEFAULT_MAX_LENGTH


def test_a_model_larger_than_the_memory_still_gets_room_for_a_short_answer() -> None:
    assert genai_config.max_length(None, 131072, 1 << 20, 2000 * MIB, 1000 * MIB) == genai_config.SMALLEST_MAX_LENGTH


def test_the_end_tokens_come_from_the_generation_config() -> None:
    assert genai_config.stop_tokens(description(), {"eos_token_id": [7, 8], "pad_token_id": 9}) == ([7, 8], 9)


def test_without_end_tokens_in_the_generation_config_those_of_config_are_used() -> None:
    assert genai_config.stop_tokens(description(), {}) == ([2], 2)


def test_end_tokens_outside_the_vocabulary_are_dropped() -> None:
    assert genai_config.stop_tokens(description(), {"eos_token_id": [7, 100, -1]}) == ([7], 7)


@pytest.mark.parametrize(("changes", "end"), [({}, 1), ({"pad": 5}, 1), ({"bos": None}, 99)])
def test_a_model_without_an_end_token_gets_one_that_it_does_not_generate(changes: dict[str, object], end: int) -> None:
    assert genai_config.stop_tokens(description(eos=(), **changes), {})[0] == [end]


def test_a_model_without_an_end_token_gives_a_notice_and_one_with_an_end_none() -> None:
    (notice,) = genai_config.end_notices(description(eos=()), {})
    assert "an answer ends with token 1" in notice.what
    assert not list(genai_config.end_notices(description(eos=()), {"eos_token_id": 7}))
    assert not list(genai_config.end_notices(description(), {}))


@pytest.mark.parametrize("settings", [{"eos_token_id": 400}, {"eos_token_id": [400, -1], "top_k": 5}])
def test_end_tokens_that_the_model_lacks_are_said_once(settings: dict[str, object]) -> None:
    (notice,) = genai_config.end_notices(description(eos=(400,)), settings)
    assert "an answer ends with token 1: eos_token_id names 400" in notice.what
    left = genai_config.settings_beside_ends(description(eos=(400,)), settings)
    assert not list(generation_notices(left, description().vocab_size))


@pytest.mark.parametrize(("eos", "settings"), [((2, 400), {}), ((2,), {"eos_token_id": [2, 400]})])
def test_an_end_token_that_the_model_lacks_beside_one_that_it_has_is_said(
    eos: tuple[int, ...], settings: dict[str, object]
) -> None:
    left = genai_config.settings_beside_ends(description(eos=eos), settings)
    (notice,) = generation_notices(left, description().vocab_size)
    assert "eos_token_id = 400" in notice.what
    assert notice.about == ("generation_config.json" if settings else "config.json")
    assert not list(genai_config.end_notices(description(eos=eos), settings))


@pytest.mark.parametrize("token", [100, -1, 10**30])
def test_a_beginning_or_padding_that_the_model_lacks_is_said_and_not_written(token: int) -> None:
    made = description(bos=token, pad=token)
    told = list(generation_notices(genai_config.settings_beside_ends(made, {}), 100))
    assert [(notice.about, notice.what.partition(":")[0]) for notice in told] == [
        ("config.json", f"bos_token_id = {token}"), ("config.json", f"pad_token_id = {token}")
    ]  # fmt: skip
    assert genai_config.stop_tokens(made, {}) == ([2], 2)
    assert "bos_token_id" not in document(made)["model"]


def test_sampling_settings_come_from_the_checkpoint_or_transformers_defaults() -> None:
    asked = genai_config.search({"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8}, 100, 64, True)
    assert (asked["do_sample"], asked["temperature"], asked["top_k"], asked["top_p"]) == (True, 0.7, 20, 0.8)
    silent = genai_config.search({}, 100, 64, True)
    assert (silent["do_sample"], silent["temperature"], silent["top_k"], silent["top_p"]) == (False, 1.0, 50, 1.0)


@pytest.mark.parametrize(
    ("given", "key", "expected"),
    [
        ({"top_k": 1000}, "top_k", 100),
        ({"top_k": None}, "top_k", 50),
        ({"top_k": -1}, "top_k", 50),
        ({"top_p": 7}, "top_p", 1.0),
        ({"do_sample": True, "temperature": 0.0}, "do_sample", False),
    ],
)
def test_sampling_values_that_the_runtime_refuses_are_not_written(
    given: dict[str, object], key: str, expected: object
) -> None:
    assert genai_config.search(given, 100, 64, True)[key] == expected


def test_the_number_of_threads_is_written_only_if_it_is_known() -> None:
    def session(threads: int | None) -> dict[str, object]:
        options: dict[str, object] = document(description(), threads)["model"]["decoder"]["session_options"]
        return options

    assert session(3)["intra_op_num_threads"] == 3
    assert "intra_op_num_threads" not in session(None)
