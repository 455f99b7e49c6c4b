"""Compositions from config.json: transformers' defaults, both dialects, and refused settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drupe.api import ModelError, replace
from drupe_checkpoints import open_checkpoint
from drupe_model_builder.composition import Decoder
from drupe_model_builder.finding import composition_of
from drupe_model_builder.rotary_tables import RotaryCache
from drupe_onnx import Files, ir

REQUIRED = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
}
LLAMA3 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


PLAIN = ("granite", "llama", "mistral", "qwen2", "qwen3", "seed_oss", "internlm3", "glm", "olmo2", "gemma", "arcee")
"""Families whose configurations have Llama's keys."""


def composed(folder: Path, **config: Any) -> Decoder:
    (folder / "config.json").write_text(json.dumps(config))
    return composition_of(open_checkpoint(folder))


def windows(decoder: Decoder) -> tuple[int | None, ...]:
    return tuple(attention.window for attention in decoder.attentions)


@pytest.mark.parametrize("model_type", PLAIN)
def test_missing_keys_have_the_defaults_of_transformers(model_type: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    theirs = AutoConfig.for_model(model_type, **REQUIRED)
    ours = composed(tmp_path, model_type=model_type, **REQUIRED)
    attention = ours.attentions[0]
    assert attention.kv_heads == theirs.num_key_value_heads
    assert attention.head_dim == (getattr(theirs, "head_dim", None) or 256 // 32)
    assert ours.context_length == theirs.max_position_embeddings
    assert ours.final_norm.epsilon == theirs.rms_norm_eps
    assert ours.head.tied == theirs.tie_word_embeddings
    assert ours.layers[0].steps[1].branches[0].part.activation == theirs.hidden_act
    expected = {"mistral": 4096}
    assert windows(ours) == (expected.get(model_type),) * 4


@pytest.mark.parametrize("model_type", PLAIN)
@pytest.mark.parametrize("key", REQUIRED)
def test_the_error_for_a_missing_key_names_key_and_file(model_type: str, key: str, tmp_path: Path) -> None:
    config = {name: value for name, value in REQUIRED.items() if name != key}
    with pytest.raises(ModelError, match=f"'{key}'") as caught:
        composed(tmp_path, model_type=model_type, **config)
    assert caught.value.where == str(tmp_path / "config.json")
    assert caught.value.cure


def test_both_dialects_give_the_same_composition(tmp_path: Path) -> None:
    old = composed(
        tmp_path,
        model_type="llama",
        torch_dtype="bfloat16",
        rope_theta=500000.0,
        rope_scaling={"rope_type": "llama3", **LLAMA3},
        max_position_embeddings=131072,
        **REQUIRED,
    )
    new = composed(
        tmp_path,
        model_type="llama",
        dtype="bfloat16",
        rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, **LLAMA3},
        max_position_embeddings=131072,
        **REQUIRED,
    )
    assert old == new


def test_the_old_key_type_is_read_as_rope_type(tmp_path: Path) -> None:
    one = composed(tmp_path, model_type="llama", rope_scaling={"type": "linear", "factor": 2.0}, **REQUIRED)
    other = composed(tmp_path, model_type="llama", rope_scaling={"rope_type": "linear", "factor": 2.0}, **REQUIRED)
    assert one == other
    assert one.attentions[0].rotary.frequencies[0] == 0.5


def test_windows_by_layer_types_and_by_max_window_layers_agree(tmp_path: Path) -> None:
    common = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 64, **REQUIRED}
    types = ["full_attention", "full_attention", "sliding_attention", "sliding_attention"]
    expected = (None, None, 64, 64)
    assert windows(composed(tmp_path, **common, max_window_layers=2)) == expected
    assert windows(composed(tmp_path, **common, layer_types=types)) == expected
    unused = {**common, "use_sliding_window": False}
    assert windows(composed(tmp_path, **unused, layer_types=types)) == (None,) * 4


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 1e6},
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
        {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3},
        {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768},
        {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 40.0, "original_max_position_embeddings": 4096,
            "mscale": 0.7, "mscale_all_dim": 1.0, "beta_fast": 16, "beta_slow": 2, "truncate": False,
        },
    ],
)  # fmt: skip
def test_rotary_tables_agree_with_transformers_at_position_100_000(rope: dict[str, Any], tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    settings = {**REQUIRED, "head_dim": 128, "max_position_embeddings": 131072, "rope_parameters": rope}
    ours = composed(tmp_path, model_type="llama", **settings).attentions[0].rotary
    theirs = LlamaRotaryEmbedding(LlamaConfig(**settings))
    np.testing.assert_allclose(ours.frequencies, theirs.inv_freq.numpy(), rtol=3e-7)
    first, last = 100_000, 100_004
    expected = theirs(torch.zeros(1), torch.arange(first, last)[None])
    with Files() as files:
        for function, table in zip(("cos", "sin"), expected, strict=True):
            cache = RotaryCache(function, 131072, ours.frequencies, ours.scaling, ir.DataType.FLOAT)
            # Frequencies may differ in the last bit, which 100,000 positions multiply.
            np.testing.assert_allclose(cache.rows(first, last, files), table[0, :, :64].numpy(), atol=0.02)
            half = replace(cache, dtype=ir.DataType.FLOAT16).rows(first, last, files)
            np.testing.assert_array_equal(half, cache.rows(first, last, files).astype(np.float16))
            np.testing.assert_allclose(
                cache.rows(0, 64, files), theirs(torch.zeros(1), torch.arange(64)[None])[function == "sin"][0, :, :64],
                atol=1e-5,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"rope_parameters": {"rope_type": "polar", "factor": 2.0}}, "'polar'"),
        ({"rope_parameters": {"rope_type": "axial"}}, "'axial'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "'factor'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"hidden_act": "quick_gelu"}, "'quick_gelu'"),
        ({"num_key_value_heads": 5}, "num_key_value_heads = 5"),
        ({"hidden_size": "large"}, 'hidden_size = "large"'),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"quantization_config": {"quant_method": "quanto"}}, "'quanto'"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"num_hidden_layers": 10**19}, "num_hidden_layers = 10000000000000000000 .* to 10000"),
        ({"head_dim": 10**19}, "head_dim = 10000000000000000000 .* to 2147483647"),
        ({"head_dim": 1 << 30}, "head_dim = 1073741824"),
        ({"num_attention_heads": 512}, "num_attention_heads = 512 is more than hidden_size = 256"),
        ({"vocab_size": 1 << 40}, "vocab_size"),
        ({"model_type": "granite", "logits_scaling": 0}, "logits_scaling = 0"),
    ],
)
def test_a_setting_that_is_not_supported_is_refused_by_name(
    changed: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=named):
        composed(tmp_path, **{"model_type": "llama", **REQUIRED, **changed})


@pytest.mark.parametrize(
    ("rope", "named"),
    [
        ({"rope_type": "default", "rope_theta": 0}, "rope_theta = 0"),
        ({"rope_type": "default", "rope_theta": 1}, "rope_theta = 1"),
        ({"rope_type": "default", "rope_theta": "big"}, "rope_theta"),
        ({"rope_type": "default", "rope_theta": 1e300}, "no usable frequencies.*1e\\+300"),
        ({"rope_type": "linear", "factor": 0}, "factor = 0"),
        ({"rope_type": "llama3", **LLAMA3, "factor": 0}, "factor = 0"),
        ({"rope_type": "llama3", **LLAMA3, "low_freq_factor": 0}, "low_freq_factor = 0"),
        ({"rope_type": "llama3", **LLAMA3, "high_freq_factor": 0.5}, "high_freq_factor = 0.5"),
        ({"rope_type": "yarn", "factor": -4.0}, "factor = -4"),
        ({"rope_type": "yarn", "factor": 4.0, "rope_theta": 1}, "rope_theta = 1"),
        ({"rope_type": "yarn", "factor": 4.0, "beta_fast": "32"}, "beta_fast"),
        ({"rope_type": "yarn", "factor": 4.0, "beta_slow": 1e308}, "no usable frequencies"),
        ({"rope_type": "yarn", "factor": 4.0, "mscale": "1", "mscale_all_dim": 1.0}, "mscale"),
        ({"rope_type": "yarn", "factor": 4.0, "attention_factor": "one"}, "attention_factor"),
    ],
)
def test_the_error_for_an_invalid_rotary_number_names_it(rope: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=named) as caught:
        composed(tmp_path, model_type="llama", rope_parameters=rope, **REQUIRED)
    assert caught.value.where == str(tmp_path / "config.json")


def test_the_error_for_an_unknown_architecture_names_similar_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'Qwen9ForCausalLM'.*similar and supported: .*qwen3") as caught:
        composed(tmp_path, model_type="qwen9", architectures=["Qwen9ForCausalLM"], **REQUIRED)
    assert "drupe inspect --families" in str(caught.value.cure)
    with pytest.raises(ModelError, match=r"'grok' is not supported; [0-9]+ families are"):
        composed(tmp_path, model_type="grok", **REQUIRED)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "bert", "architectures": ["BertModel"]}, "it is an encoder of text"),
        ({"model_type": "newbert", "architectures": ["NewBertForMaskedLM"]}, "it is an encoder of text"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "it is an encoder with a decoder"),
    ],
)
def test_an_encoder_is_refused_as_one_and_the_way_over_onnx_is_named(
    config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        composed(tmp_path, **config, **REQUIRED)
    assert "similar" not in caught.value.what and "export it to ONNX" in str(caught.value.cure)
