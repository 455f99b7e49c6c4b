"""The text part of a wrapper: its settings with the defaults of its class in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drupe.api import ModelError
from drupe_checkpoints import Configuration
from drupe_checkpoints.text_part import text_part
from drupe_checkpoints.text_part_types import ALONE, DEFAULTS, UNNAMED

ROPE_KEYS = ("rope_theta", "partial_rotary_factor")
WRITTEN_OTHERWISE = {"phi4_multimodal": {"partial_rotary_factor": 0.75}}
"""Defaults that published files state, and that the class does not have."""


def part(**entries: Any) -> Configuration | None:
    return text_part(Configuration(Path("config.json"), entries))


@pytest.mark.parametrize("kind", DEFAULTS)
def test_defaults_of_a_text_part_are_those_of_its_class(kind: str) -> None:
    from transformers import CONFIG_MAPPING

    usual = CONFIG_MAPPING[kind]().to_dict()
    rope = {"partial_rotary_factor": 1.0, **usual.get("rope_parameters", {}), **WRITTEN_OTHERWISE.get(kind, {})}
    for key, value in DEFAULTS[kind].items():
        wanted = rope[key] if key in ROPE_KEYS else usual[key]
        assert value == wanted or (isinstance(wanted, list) and set(wanted) == {value}), key  # by layer, all alike


@pytest.mark.parametrize("kind", ALONE)
def test_a_text_part_that_counts_as_another_family_has_its_own_defaults_where_the_two_differ(kind: str) -> None:
    from transformers import CONFIG_MAPPING

    own, alone = (CONFIG_MAPPING[name]().to_dict() for name in (kind, ALONE[kind]))
    checked = ("num_key_value_heads", "rms_norm_eps", "hidden_act", "max_position_embeddings")
    differing = {key for key in checked if own[key] != alone[key]}
    assert differing <= DEFAULTS[kind].keys()


@pytest.mark.parametrize("wrapper", UNNAMED)
def test_a_section_without_a_model_type_is_of_the_kind_that_transformers_takes(wrapper: str) -> None:
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[wrapper](**({} if wrapper == "qwen2_5_omni" else {"text_config": {}}))
    config = getattr(config, "thinker_config", config)
    assert config.text_config.model_type == UNNAMED[wrapper]


def test_a_text_part_has_its_own_settings_and_those_that_count_outside() -> None:
    found = part(
        model_type="gemma3",
        architectures=["Gemma3ForConditionalGeneration"],
        eos_token_id=[1, 106],
        text_config={"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34, "eos_token_id": 1},
        vision_config={"hidden_size": 1152},
    )
    assert found is not None
    assert (found["model_type"], found["hidden_size"], found["num_attention_heads"]) == ("gemma3_text", 2560, 8)
    assert found["eos_token_id"] == [1, 106]
    assert "vision_config" not in found and "architectures" not in found


def test_positions_of_images_have_no_effect_on_text() -> None:
    rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_theta": 5e6}
    found = part(model_type="qwen3_vl", text_config={"model_type": "qwen3_vl_text", "rope_scaling": rope})
    assert found is not None
    assert found["model_type"] == "qwen3"
    assert found["rope_scaling"] == {"rope_type": "default", "rope_theta": 5e6}
    assert "rope_theta" not in found


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "hidden_size": 64},
        {"model_type": "clip", "architectures": ["CLIPModel"], "text_config": {"model_type": "clip_text_model"}},
        {"model_type": "florence2", "text_config": {"model_type": "bart"}},
        {"model_type": "gemma3", "architectures": ["Gemma3ForSequenceClassification"],
         "text_config": {"model_type": "gemma3_text"}},
    ],
)  # fmt: skip
def test_a_model_without_a_text_part_that_writes_text_by_itself_has_none(config: dict[str, Any]) -> None:
    assert part(**config) is None


@pytest.mark.parametrize(("section", "key"), [([1], "text_config"), ({"model_type": 5}, "model_type")])
def test_a_section_of_another_form_is_refused_by_its_key(section: Any, key: str) -> None:
    with pytest.raises(ModelError, match=f"{key} = "):
        part(model_type="llava", text_config=section)
