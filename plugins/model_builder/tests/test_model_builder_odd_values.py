"""Values of config.json that no model has: a message that names the key, never a stack, a long wait or much memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import decoder_families
import pytest
import tiny

from drupe.api import ModelError
from drupe_checkpoints import open_checkpoint
from drupe_model_builder.composition import Decoder
from drupe_model_builder.finding import composition_of, own_families

HUGE = 10**9
FIRST = {decoder_families.model_type_of(name): name for name in reversed(decoder_families.EVERY_CASE)}
"""The first case of each family."""
WRONG = [
    ("bloom", {"n_head": HUGE}, "hidden_size = 96 is not a multiple of n_head = 1000000000"),
    ("bloom", {"hidden_size": 3}, "hidden_size = 3 is not a multiple of n_head = 6"),
    ("gpt2", {"n_embd": 3}, "n_embd = 3 is not a multiple of n_head = 4"),
    ("gptj", {"n_embd": 3}, "n_embd = 3 is not a multiple of n_head = 4"),
    ("gptj", {"rotary_dim": 9}, "rotary_dim = 9 is not an even number up to the 16 elements of a head"),
    ("codegen", {"rotary_dim": 18}, "rotary_dim = 18 is not an even number up to the 16 elements of a head"),
    ("mpt", {"n_heads": 5}, "d_model = 96 is not a multiple of n_heads = 5"),
    ("falcon, groups", {"num_kv_heads": 3}, "num_attention_heads = 4 is not a multiple of num_kv_heads = 3"),
    ("exaone", {"num_key_value_heads": 3}, "num_attention_heads = 4 is not a multiple of num_key_value_heads = 3"),
    ("chatglm", {"multi_query_group_num": 3}, "num_attention_heads = 4 is not a multiple of multi_query_group_num = 3"),
    ("chatglm", {"rope_ratio": 0}, "rope_ratio = 0 in config.json"),
    ("bitnet", {"hidden_size": 3}, "num_attention_heads = 4 is more than hidden_size = 3"),
    ("nemotron_h", {"n_groups": 4}, "mamba_num_heads = 6 is not a multiple of n_groups = 4"),
    ("mamba2", {"num_heads": 3}, "num_heads = 3 is not a multiple of n_groups = 2"),
    ("gemma4_text", {"head_dim": HUGE}, "head_dim = 1000000000 is more than 65536"),
    ("deepseek_v3", {"num_nextn_predict_layers": HUGE}, "num_nextn_predict_layers = 1000000000 in config.json"),
    ("hunyuan_v1_moe", {"num_experts": HUGE}, "num_experts = 1000000000 in config.json"),
    ("hunyuan_v1_moe", {"num_experts": [8, 8, 8, 8, HUGE]}, "num_experts wants a number from 1 to 65536"),
    ("granite_swa", {"layer_rope_theta": [0, 0, 0, 0, "x"]}, 'layer_rope_theta = "x" in config.json'),
    ("llama", {"rms_norm_eps": -1e-5}, "rms_norm_eps = -1e-05 in config.json: it must be a number that is not neg"),
    ("gpt_neox", {"layer_norm_eps": -1}, "layer_norm_eps = -1"),
    ("stablelm", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.01}},
     "head_dim = 32 and partial_rotary_factor = 0.01: 0 elements cannot be rotated"),
    ("lfm3", {"rope_parameters": {"full_attention": {"rope_type": "x", "partial_rotary_factor": 0.5},
                                  "sliding_attention": {"rope_type": "default"}}},
     "rotary embeddings of type 'x' (rope_type in config.json) are not supported"),
    ("kimi_linear", {"moe_renormalize": 7}, "moe_renormalize = 7 in config.json"),
    ("kimi_linear", {"num_expert_group": 3}, "num_experts = 8 does not make num_expert_group = 3 groups"),
    ("opt", {"_remove_final_layer_norm": True}, "_remove_final_layer_norm = true in config.json leaves out the norm"),
    ("opt", {"word_embed_proj_dim": 0}, "word_embed_proj_dim = 0 in config.json"),
    ("gpt_neo", {"attention_types": [[["global", "near"], 2]]}, "attention_types wants groups such as"),
    ("gpt_neo", {"num_layers": 4}, "attention_types is for 5 layers, and num_layers = 4"),
    ("biogpt", {"num_attention_heads": 5}, "hidden_size = 64 is not a multiple of num_attention_heads = 5"),
    ("bailing_hybrid", {"model_max_length": 1.5}, "model_max_length = 1.5 in config.json"),
]  # fmt: skip


def composed(folder: Path) -> Decoder:
    return composition_of(open_checkpoint(folder))


@pytest.mark.parametrize(("name", "changed", "message"), WRONG)
def test_a_value_that_does_not_fit_is_refused_by_the_files_own_key(
    name: str, changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = decoder_families.write_configuration(name, tmp_path / "model")
    tiny.edit_config(folder, **changed)
    with pytest.raises(ModelError) as caught:
        composed(folder)
    assert caught.value.what.startswith(message) and caught.value.cure


@pytest.mark.parametrize("family", own_families())
def test_any_number_of_a_family_is_composed_or_refused(family: str, tmp_path: Path) -> None:
    folder = decoder_families.write_configuration(FIRST[family], tmp_path / "model")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    composed(folder)
    for key, value in config.items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        for odd in (3, HUGE):
            path.write_text(json.dumps({**config, key: odd}))
            try:
                composed(folder)
            except ModelError as error:
                assert error.cure, key
