"""Every key of config.json is used, has no effect, or is refused by name. Tables agree with transformers' classes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import decoder_families
import pytest

from drupe.api import ModelError
from drupe_checkpoints import Checkpoint
from drupe_decoding import GENERATION_KEYS
from drupe_model_builder.configuration.keys import (
    LIMITED,
    NEUTRAL,
    OF_FAMILIES,
    READ_ELSEWHERE,
    ROPE_LIMITED,
    ROPE_NEUTRAL,
)
from drupe_model_builder.configuration.recorded import RecordedConfiguration
from drupe_model_builder.finding import composition_of, notices_of, own_family

CONFIG: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
}  # fmt: skip
CLASSES = {"granite": "Granite", "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
# For keys without effect: a value that is not the default and that transformers' classes accept.
OTHER_VALUES: dict[str, Any] = {
    "chunk_size_feed_forward": 4, "id2label": {"0": "A", "1": "B", "2": "C"}, "label2id": {"A": 0, "B": 1, "C": 2},
    "initializer_range": 0.5, "output_hidden_states": True, "problem_type": "regression",
    "transformers_version": "4.0.0", "use_cache": False, "attention_dropout": 0.3, "pretraining_tp": 4,
    "max_window_layers": 1, "use_sliding_window": True, "num_labels": 5, "tie_last_hidden_states": True,
    "output_attentions": True, "is_decoder": True,
}  # fmt: skip


def config_of(model_type: str, **changed: Any) -> dict[str, Any]:
    named = {"model_type": model_type, "architectures": [f"{CLASSES[model_type]}ForCausalLM"]}
    return {**CONFIG, **named, **changed}


def checkpoint_with(folder: Path, model_type: str, **changed: Any) -> Checkpoint:
    (folder / "config.json").write_text(json.dumps(config_of(model_type, **changed)))
    return Checkpoint.open_folder(folder)


def test_no_key_is_limited_and_neutral() -> None:
    assert not LIMITED.keys() & NEUTRAL
    assert not ROPE_LIMITED.keys() & ROPE_NEUTRAL


def saved_configuration(name: str, folder: Path) -> Any:
    """The configuration of a case in transformers' class, saved in the folder."""
    transformers = pytest.importorskip("transformers")
    case = decoder_families.CASES[name]
    if case.told_as is not None:
        pytest.skip("transformers has no class of this family")
    config = transformers.AutoConfig.for_model(case.family, **{**case.sizes, **case.settings})
    config.save_pretrained(folder)
    return config


@pytest.mark.parametrize("name", decoder_families.CASES)
def test_every_setting_of_transformers_class_is_read_limited_or_neutral(name: str, tmp_path: Path) -> None:
    config = saved_configuration(name, tmp_path)
    known = {field.name for field in dataclasses.fields(config)} | vars(config).keys() | config.to_dict().keys()
    known |= {key for key in dir(type(config)) if _is_setting(type(config), key)}
    recorded = RecordedConfiguration(tmp_path / "config.json", json.loads((tmp_path / "config.json").read_text()))
    own_family(decoder_families.CASES[name].family)(recorded)
    own = OF_FAMILIES.get(recorded.entries["model_type"], {})
    accounted = recorded.keys_read | LIMITED.keys() | own.keys() | NEUTRAL | READ_ELSEWHERE | set(GENERATION_KEYS)
    renamed = set(getattr(config, "attribute_map", {}))
    assert known - accounted - renamed <= {"_post_init_done"}


@pytest.mark.parametrize("name", decoder_families.CASES)
def test_every_family_counts_only_the_keys_that_it_reads_itself(name: str, tmp_path: Path) -> None:
    """A family that copies the whole configuration would seem to read every key."""
    saved_configuration(name, tmp_path)
    entries = json.loads((tmp_path / "config.json").read_text())
    recorded = RecordedConfiguration(tmp_path / "config.json", {**entries, "is_causal": False, "a_key": 1})
    own_family(decoder_families.CASES[name].family)(recorded)
    assert not {"is_causal", "a_key"} & recorded.keys_read


def _is_setting(kind: type, name: str) -> bool:
    """Whether a property of a configuration class can be set by a key of config.json."""
    found = getattr(kind, name, None)
    return isinstance(found, property) and found.fset is not None


@pytest.mark.parametrize("name", decoder_families.CASES)
def test_configurations_that_transformers_saves_give_no_notice(name: str, tmp_path: Path) -> None:
    saved_configuration(name, tmp_path)
    checkpoint = Checkpoint.open_folder(tmp_path)
    assert composition_of(checkpoint)
    assert not list(notices_of(checkpoint))


@pytest.mark.parametrize("model_type", CLASSES)
def test_keys_without_effect_have_none_in_transformers(model_type: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(7)
    settings = {key: value for key, value in config_of(model_type).items() if key != "model_type"}
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(model_type, **settings))
    prompt = torch.tensor([[5, 71, 33, 90, 12, 12, 48, 7]])
    expected = model.eval()(prompt).logits
    for key, value in OTHER_VALUES.items():
        if key not in NEUTRAL:
            continue
        config = transformers.AutoConfig.for_model(model_type, **{**settings, key: value})
        other = transformers.AutoModelForCausalLM.from_config(config).eval()
        other.load_state_dict(model.state_dict())
        found = other(prompt, return_dict=True).logits
        assert torch.equal(found, expected), key


def test_is_causal_has_an_effect_in_transformers() -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(7)
    settings = {key: value for key, value in config_of("llama").items() if key != "model_type"}
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model("llama", **settings)).eval()
    prompt = torch.tensor([[5, 71, 33, 90]])
    expected = model(prompt).logits
    model.config.is_causal = False
    assert not torch.allclose(model(prompt).logits, expected)


@pytest.mark.parametrize(
    ("model_type", "changed", "says"),
    [
        ("llama", {"is_causal": False}, "reads later ones, so it cannot write"),
        ("llama", {"is_causal": None}, "is_causal wants true or false"),
        ("qwen3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("llama", {"attn_logit_softcapping": 50.0}, "limits the scores of attention"),
        ("mistral", {"attention_multiplier": 0.2}, "attention_multiplier"),
        ("llama", {"clip_qkv": 8.0}, "clip_qkv"),
        ("llama", {"num_local_experts": 8}, "asks for experts"),
        ("qwen2", {"use_qk_norm": True}, "use_qk_norm"),
        ("qwen3", {"use_qk_norm": False}, "leaves out the norms"),
        ("llama", {"rope_interleaved": True}, "rotates neighbouring values"),
        ("llama", {"hidden_activation": "gelu"}, "hidden_activation"),
        ("llama", {"sliding_window": 16}, "sliding_window"),
        ("llama", {"sliding_window": 16, "use_sliding_window": False}, "sliding_window"),  # read by Qwens only
        ("llama", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        (
            "llama",
            {
                "layer_types": ["full_attention", "sliding_attention"],
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            },
            "layer_types",
        ),
        ("mistral", {"sliding_window": 16, "layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("llama", {"per_layer_config": {"0": {"intermediate_size": 8}}}, "per_layer_config"),
        ("llama", {"transformers_weights": "other.safetensors"}, "names another file of weights"),
        ("llama", {"no_rope_layers": [1, 0]}, "leaves out the rotary embedding"),
        ("llama", {"vision_config": {"hidden_size": 8}}, "vision_config"),
        ("llama", {"rope_scaling": {"rope_type": "default", "alpha": 1000.0}}, "alpha = 1000.0"),
    ],
)
def test_the_error_for_a_setting_that_is_not_supported_names_it(
    model_type: str, changed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        composition_of(checkpoint_with(tmp_path, model_type, **changed))
    assert says in caught.value.what
    assert caught.value.cure


@pytest.mark.parametrize(
    ("model_type", "changed"),
    [
        ("llama", {"is_causal": True, "num_local_experts": 0, "clip_qkv": None, "pruned_heads": {}}),
        ("llama", {"sliding_window": 64}),
        ("qwen2", {"sliding_window": 16, "use_sliding_window": False}),
        (
            "llama",
            {"layer_types": ["full_attention"] * 2, "mlp_layer_types": ["dense"] * 2, "hidden_activation": "silu"},
        ),
        ("mistral", {"sliding_window": 16, "layer_types": ["sliding_attention"] * 2}),
        ("mistral", {"sliding_window": None, "layer_types": ["full_attention"] * 2}),
        ("qwen3", {"use_qk_norm": True}),
        ("granite", {"attention_multiplier": 0.2, "logits_scaling": 8}),
        ("llama", {"attention_multiplier": 1.0, "num_experts": None, "use_mrope": False}),
    ],
)
def test_a_setting_that_is_switched_off_is_not_refused(
    model_type: str, changed: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = checkpoint_with(tmp_path, model_type, **changed)
    assert composition_of(checkpoint)
    assert not list(notices_of(checkpoint))


def test_unknown_keys_are_named_in_one_notice(tmp_path: Path) -> None:
    checkpoint = checkpoint_with(tmp_path, "llama", frobnication=3, gizmo="x", absent=None)
    (notice,) = notices_of(checkpoint)
    assert notice.handling == "has no effect"
    assert notice.what.endswith("frobnication, gizmo")


# Keys as published, beside those above: Llama 3.1, Qwen 2.5, Mistral v0.3, Qwen 3, Granite 3; and of fine-tuned models.
PUBLISHED: dict[str, dict[str, Any]] = {
    "llama": {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": [1, 2], "mlp_bias": False,
        "initializer_range": 0.02, "pretraining_tp": 1, "rope_theta": 5e5, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.43.0", "use_cache": True, "unsloth_version": "2024.9",
        "_name_or_path": "x", "pad_token_id": 3, "hidden_act": "silu", "rope_scaling": {
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3",
            "original_max_position_embeddings": 16},
    },
    "qwen2": {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28, "use_mrope": False},
    "mistral": {"sliding_window": None, "attention_dropout": 0.0},
    "qwen3": {
        "attention_bias": False, "rope_scaling": None, "sliding_window": None, "use_sliding_window": False,
        "max_window_layers": 36, "layer_types": ["full_attention"] * 2,
    },
    "granite": {
        "attention_multiplier": 0.0078125, "embedding_multiplier": 12.0, "residual_multiplier": 0.22,
        "logits_scaling": 16.0, "attention_dropout": 0.1,
    },
}  # fmt: skip


@pytest.mark.parametrize("model_type", PUBLISHED)
def test_published_configurations_give_no_notice(model_type: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_with(tmp_path, model_type, **PUBLISHED[model_type])
    assert composition_of(checkpoint)
    assert not list(notices_of(checkpoint))


def test_a_class_of_another_architecture_gives_a_notice(tmp_path: Path) -> None:
    checkpoint = checkpoint_with(tmp_path, "llama", architectures=["MistralForCausalLM"])
    (notice,) = notices_of(checkpoint)
    assert notice.handling == "chosen"
    assert "MistralForCausalLM" in notice.what
