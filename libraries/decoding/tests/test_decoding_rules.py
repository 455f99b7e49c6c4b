"""The rules of generation_config.json: each key is known, and each rule is that of transformers' logits processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from drupe.api import ModelError
from drupe_decoding import GENERATION_KEYS, GenerationRules, LogitRules, StopStrings, generation_notices, sampling
from drupe_decoding.generation_keys import IGNORED, IGNORED_IN_SAMPLING, NEUTRAL, RULES, SAMPLING, TOKENS

VOCABULARY, END = 40, 3
TEXT = [5, 9, 9, 7, 5, 9, 12, 5]


def test_every_setting_that_transformers_knows_is_known() -> None:
    transformers = pytest.importorskip("transformers")
    known = {name for name in vars(transformers.GenerationConfig()) if name not in ("_original_object_hash",)}
    known |= transformers.GenerationConfig._get_default_generation_params().keys()
    assert known <= GENERATION_KEYS


def test_each_setting_stands_in_one_place() -> None:
    homes = [TOKENS, SAMPLING, RULES, NEUTRAL, set(IGNORED), set(IGNORED_IN_SAMPLING)]
    assert sum(map(len, homes)) == len(GENERATION_KEYS)


def logits(seed: int = 7) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(VOCABULARY).astype(np.float32)


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 3},
        {"no_repeat_ngram_size": 1},
        {"bad_words_ids": [[4], [12, 5, 8], [END], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]},
        {"sequence_bias": [[[4], 2.5], [[5, 6], -9.0], [[6, 5], 4.0]]},
        {"min_length": 9},
        {"min_length": 8},
        {"min_new_tokens": 4},
        {"min_new_tokens": 3},
        {"suppress_tokens": [4, 8, 39, 400]},
        {"forced_eos_token_id": [END, 6]},
        {"exponential_decay_length_penalty": [1, 1.5]},
        {"exponential_decay_length_penalty": [3, 1.5]},
        {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "suppress_tokens": [1], "sequence_bias": [[[9], 3.0]]},
        {"exponential_decay_length_penalty": [1, 1.5], "min_length": 20, "bad_words_ids": [[7]]},
    ],
)
@pytest.mark.parametrize("limit", [9, 30])
def test_logits_are_those_of_transformers_processors(settings: dict[str, Any], limit: int) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    prompt = 5
    config = transformers.GenerationConfig(**settings, eos_token_id=END, max_length=limit)
    config._eos_token_tensor = torch.tensor([END])
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                 num_attention_heads=2)
    )  # fmt: skip
    processors = model._get_logits_processor(config, input_ids_seq_length=prompt)
    expected = processors(torch.tensor([TEXT]), torch.tensor(logits())[None])[0].numpy()
    rules = LogitRules(GenerationRules.read(settings, [END]), prompt, limit)
    np.testing.assert_allclose(rules.apply(logits(), TEXT), expected, rtol=1e-6)


def test_tokens_that_are_suppressed_at_first_may_follow_later() -> None:
    rules = LogitRules(GenerationRules.read({"begin_suppress_tokens": [4]}), len(TEXT), 30)
    assert rules.apply(logits(), TEXT)[4] == -np.inf
    assert rules.apply(logits(), [*TEXT, 1])[4] == logits()[4]


def test_without_rules_the_logits_stay_as_they_are() -> None:
    settings = {"repetition_penalty": 1.0, "min_length": 0, "bad_words_ids": None, "suppress_tokens": []}
    rules = GenerationRules.read(settings)
    assert not rules.asked
    given = logits()
    assert LogitRules(rules, 3, 30).apply(given, TEXT) is given


@pytest.mark.parametrize(
    "settings",
    [
        {"bad_words_ids": [5]}, {"bad_words_ids": [[]]}, {"suppress_tokens": ["a"]}, {"stop_strings": [1]},
        {"sequence_bias": [[5, 1.0]]}, {"exponential_decay_length_penalty": 3},
    ],
)  # fmt: skip
def test_a_rule_of_another_form_is_an_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=next(iter(settings))) as caught:
        GenerationRules.read(settings)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("pieces", "reached"), [(["a", "bc"], [False, True]), (["ab", "c"], [False, True]), (["ac"], [False])]
)
def test_a_stop_string_is_seen_across_pieces(pieces: Sequence[str], reached: Sequence[bool]) -> None:
    stop = StopStrings(GenerationRules.read({"stop_strings": "abc"}))
    assert [stop.reached(piece) for piece in pieces] == list(reached)


def test_settings_of_sampling_are_noticed_only_where_tokens_are_drawn() -> None:
    assert not list(generation_notices({"min_p": 0.1}))
    (notice,) = generation_notices({"min_p": 0.1, "do_sample": True})
    assert notice.what.startswith("min_p = 0.1")


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 0}, {"repetition_penalty": "1.2"}, {"repetition_penalty": -1.0}, {"min_length": "3"},
        {"min_new_tokens": 2.5}, {"no_repeat_ngram_size": [2]}, {"eos_token_id": "</s>"}, {"eos_token_id": [2, "</s>"]},
        {"eos_token_id": {"id": 2}}, {"suppress_tokens": [True]}, {"forced_eos_token_id": "2"},
    ],
)  # fmt: skip
def test_a_value_that_generate_does_not_take_is_refused_with_key_value_and_file(settings: dict[str, Any]) -> None:
    (key,) = settings
    with pytest.raises(ModelError) as caught:
        list(generation_notices(settings))
    assert caught.value.what.startswith(f"{key} = ") and "generation_config.json" in caught.value.what
    with pytest.raises(ModelError, match=r"in config\.json"):
        list(generation_notices({**settings, "_taken_from": "config.json"}))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": "hot"}, {"temperature": -0.5}, {"top_p": 7}, {"top_p": "0.9"}, {"top_k": -1}, {"top_k": 2.5},
        {"do_sample": "yes"}, {"eos_token_id": 40}, {"eos_token_id": [3, 99, -1]}, {"pad_token_id": -1},
        {"bos_token_id": 40}, {"suppress_tokens": [3, 400]}, {"bad_words_ids": [[5, 77]]}, {"min_length": -3},
        {"sequence_bias": [[[40], 1.0]]}, {"temperature": 0, "do_sample": True}, {"num_beams": "four"},
    ],
)  # fmt: skip
def test_a_value_without_effect_is_said_by_name(settings: dict[str, Any]) -> None:
    told = [each for each in generation_notices(settings, VOCABULARY) if each.handling == "has no effect"]
    assert len(told) == 1 and any(f"{key} = " in told[0].what for key in settings)
    assert told[0].about == "generation_config.json"


def test_possible_values_need_no_word() -> None:
    settings = {
        "do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 0.9, "eos_token_id": [3, 39.0], "pad_token_id": 0,
        "bos_token_id": None, "repetition_penalty": 2, "min_length": 0, "max_length": 20, "transformers_version": "5.0",
    }  # fmt: skip
    assert not list(generation_notices(settings, VOCABULARY))


def test_unknown_keys_are_said_with_the_name_that_may_be_meant() -> None:
    (notice,) = generation_notices({"foo_bar": 1, "temprature": 0.5, "hidden": None})
    assert "foo_bar, temprature" in notice.what and "hidden" not in notice.what
    assert "temperature (for temprature)" in notice.cure


def test_scripts_sample_with_defaults_for_impossible_values() -> None:
    assert sampling({"do_sample": "yes", "temperature": "hot", "top_k": -1, "top_p": 7}) == sampling({})
    assert sampling({"do_sample": True, "temperature": 0}) == sampling({})
