"""Latent attention: configurations that cannot be built, layers that are left out, and targets that rotate nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decoder_families
import numpy as np
import pytest

from drupe.api import ModelError, Target
from drupe_checkpoints import Checkpoint, Configuration, open_checkpoint
from drupe_model_builder.checkpoint_tensors import weights_of
from drupe_model_builder.finding import composition_of, own_families, own_family
from drupe_model_builder.refused import REFUSED

SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 12, "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_group": 2,
    "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale_all_dim": 1.0}
PROMPT = [5, 71, 33, 90, 12, 12, 48]


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_families.make("deepseek_v3", tmp_path_factory.mktemp("deepseek"))[0]


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("deepseek_v3", {"num_key_value_heads": 2}, "num_key_value_heads = 2, but latent attention"),
        ("deepseek_v3", {"q_lora_rank": 0}, "q_lora_rank = 0"),
        ("deepseek_v3", {"kv_lora_rank": -3}, "kv_lora_rank = -3"),
        ("deepseek_v3", {"qk_rope_head_dim": 7}, "7 elements cannot be rotated"),
        ("deepseek_v3", {"qk_nope_head_dim": 1.5}, "qk_nope_head_dim = 1.5"),
        ("deepseek_v3", {"v_head_dim": "12"}, 'v_head_dim = "12"'),
        ("deepseek_v3", {"qk_head_dim": 17}, "qk_head_dim = 17 is not qk_nope_head_dim = 8 and qk_rope_head_dim = 8"),
        ("deepseek_v3", {"rope_interleave": 1}, "rope_interleave = 1"),
        ("deepseek_v3", {"n_group": 3}, "n_routed_experts = 8 does not make n_group = 3 groups"),
        ("deepseek_v3", {"n_group": 8}, "does not make n_group = 8 groups of 2 experts"),
        ("deepseek_v3", {"topk_group": 3}, "topk_group = 3 is more than n_group = 2"),
        ("deepseek_v3", {"num_experts_per_tok": 5}, "num_experts_per_tok = 5 is more than topk_group = 1 of n_group"),
        ("deepseek_v3", {"topk_method": "greedy"}, 'topk_method = "greedy" in config.json asks for another'),
        ("deepseek_v3", {"scoring_func": "softmax"}, 'scoring_func = "softmax" in config.json asks for another'),
        ("deepseek_v3", {"moe_layer_freq": 0}, "moe_layer_freq = 0"),
        ("deepseek_v3", {"n_shared_experts": -1}, "n_shared_experts = -1"),
        ("deepseek_v3", {"num_nextn_predict_layers": -1}, "num_nextn_predict_layers = -1"),
        ("deepseek_v3", {"routed_scaling_factor": "2"}, 'routed_scaling_factor = "2"'),
        ("deepseek_v3", {"hidden_act": "gelu"}, "experts with the activation function hidden_act = 'gelu'"),
        ("deepseek_v3", {"rope_parameters": {**YARN, "factor": 0}}, "factor = 0"),
        ("deepseek_v3", {"rope_parameters": {**YARN, "mscale_all_dim": "1"}}, 'mscale_all_dim = "1"'),
        ("deepseek_v3", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary"),
        ("deepseek_v2", {"topk_method": "noaux_tc"}, 'topk_method = "noaux_tc" in config.json asks for another'),
        ("deepseek_v2", {"norm_topk_prob": True}, "norm_topk_prob = true"),
        ("deepseek_v2", {"scoring_func": "sigmoid"}, 'scoring_func = "sigmoid"'),
        ("glm4_moe_lite", {"mlp_layer_types": ["dense"]}, "mlp_layer_types wants, for each of 2 layers"),
        ("minicpm3", {"scale_depth": 0}, "scale_depth = 0"),
        ("minicpm3", {"dim_model_base": -1}, "dim_model_base = -1"),
        ("minicpm3", {"scale_emb": "12"}, 'scale_emb = "12"'),
        ("mistral4", {"rope_parameters": {"rope_type": "default"}}, "lacks the key 'llama_4_scaling_beta'"),
    ],
)
def test_a_wrong_value_is_refused_in_one_message_with_its_key(
    family: str, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    config = Configuration(tmp_path / "config.json", {**SIZES, "model_type": family, **change})
    with pytest.raises(ModelError) as caught:
        own_family(family)(config)
    assert said in caught.value.what
    assert caught.value.cure


def test_a_family_that_is_known_and_not_built_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "deepseek_v32", "architectures": ["DeepseekV32ForCausalLM"]}')
    with pytest.raises(
        ModelError,
        match=r"DeepseekV32ForCausalLM' .model_type deepseek_v32. is not supported: a small attention of its own",
    ):
        composition_of(Checkpoint.open_folder(tmp_path))


def test_no_family_is_built_and_refused() -> None:
    assert not REFUSED.keys() & set(own_families())


@pytest.mark.parametrize("key", ["q_lora_rank", "n_shared_experts"])
def test_null_leaves_a_part_out(key: str, tmp_path: Path) -> None:
    config = {**SIZES, "model_type": "deepseek_v3"}
    part = {"q_lora_rank": "q_a_proj", "n_shared_experts": "shared_experts"}[key]
    tensors = own_family("deepseek_v3")(Configuration(tmp_path / "config.json", config)).tensors()
    assert any(part in name for name in tensors)
    without = own_family("deepseek_v3")(Configuration(tmp_path / "config.json", {**config, key: None})).tensors()
    assert not any(part in name for name in without)


def test_experts_are_on_every_so_many_layers(tmp_path: Path) -> None:
    config = {**SIZES, "model_type": "deepseek_v3", "num_hidden_layers": 6, "moe_layer_freq": 2}
    tensors = own_family("deepseek_v3")(Configuration(tmp_path / "config.json", config)).tensors()
    assert [layer for layer in range(6) if f"model.layers.{layer}.mlp.gate.weight" in tensors] == [2, 4]


def test_layers_that_predict_further_tokens_are_left_out(deepseek: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(deepseek, tmp_path / "more")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.3.eh_proj.weight"] = torch.zeros(64, 128)
    save_file(tensors, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    assert weights_of(checkpoint, composition_of(checkpoint))


def test_biases_of_the_choice_that_a_published_model_lacks_are_zeros(tmp_path: Path) -> None:
    """A.X K1 has none, and a norm in its dense layer that nothing uses."""
    from safetensors.torch import load_file, save_file

    from drupe_onnx import Files

    folder, _ = decoder_families.make("axk1", tmp_path)
    bias = "model.layers.1.mlp.gate.e_score_correction_bias"
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.post_mlp_layernorm.weight"] = tensors["model.norm.weight"].clone()
    save_file({name: each for name, each in tensors.items() if name != bias}, folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    with Files() as files:
        assert not weights_of(checkpoint, composition_of(checkpoint)).tensors[bias].value(files).any()


def test_a_target_whose_attention_rotates_nothing_gives_the_same(
    deepseek: Path, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    """Nodes before attention rotate, at the given positions."""
    import onnx_ir as ir

    from drupe_model_builder.parts import latent_attention

    plain = kit.Stepper(kit.build(_dense(deepseek, kit, tmp_path), cpu, tmp_path / "plain", weights="float32"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_attention, "ROTATED_MULTIPLE", 32)
        other = kit.build(tmp_path / "dense", cpu, tmp_path / "other", weights="float32")
    graph = ir.load(other / "model.onnx").graph
    assert sum(node.op_type == "RotaryEmbedding" for node in graph) == 6
    stepper = kit.Stepper(other)
    for new in (PROMPT, [4], [8]):
        np.testing.assert_allclose(stepper([new]), plain([new]), atol=1e-4)


def _dense(folder: Path, kit: SimpleNamespace, tmp_path: Path) -> Path:
    """The checkpoint with the dense MLP of its first layer in all layers: the table of the tests has no experts."""
    from safetensors.torch import load_file, save_file

    made = shutil.copytree(folder, tmp_path / "dense")
    kit.edit_config(made, first_k_dense_replace=3)
    tensors = {name: each for name, each in load_file(made / "model.safetensors").items() if ".mlp." not in name}
    for name, each in load_file(folder / "model.safetensors").items():
        if name.startswith("model.layers.0.mlp."):
            tensors |= {name.replace("layers.0", f"layers.{number}"): each.clone() for number in range(3)}
    save_file(tensors, made / "model.safetensors")
    return made
