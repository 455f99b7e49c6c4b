"""Adapters that change experts are merged as peft's merge_and_unload() does it, in both dialects of names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import decoder_families
import numpy as np
import pytest
from adapters import make_adapter, merged_by_peft
from safetensors.numpy import load_file, save_file
from tiny import make_checkpoint

import drupe
from drupe.api import ModelError, registry, resolve
from drupe_onnx import Files, member

peft = pytest.importorskip("peft")
ALL = ["experts.gate_up_proj", "experts.down_proj"]
QWEN = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "num_key_value_heads": 2}
MIXTRAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
GPT_OSS = {**MIXTRAL, "head_dim": 16, "intermediate_size": 64}  # square, so that shapes tell nothing
NEMOTRON = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "layer_types": ["moe", "attention"],
    "mamba_num_heads": 4, "mamba_head_dim": 32, "head_dim": 16,
}  # fmt: skip
LLAMA4 = {
    **MIXTRAL,
    "intermediate_size_mlp": 80,
    "head_dim": 16,
    "intermediate_size": 64,
    "interleave_moe_layer_step": 1,
}


def lora(*parameters: str, **settings: Any) -> Any:
    return peft.LoraConfig(
        **{"r": 3, "lora_alpha": 5, "target_modules": ["q_proj"], "target_parameters": list(parameters), **settings}
    )


CASES: dict[str, tuple[str, Mapping[str, Any], Callable[[], Any]]] = {
    "qwen3_moe": ("qwen3_moe", QWEN, lambda: lora(*ALL)),
    "mixtral": ("mixtral", MIXTRAL, lambda: lora(*ALL)),
    "transposed and in turn": ("gpt_oss", GPT_OSS, lambda: lora(*ALL)),
    "transposed, not for peft": ("llama4_text", LLAMA4, lambda: lora(*ALL)),
    "without a gate": ("nemotron_h", NEMOTRON, lambda: lora("experts.up_proj", "experts.down_proj")),
    "other names": ("granitemoe", MIXTRAL, lambda: lora(*ALL)),
    "one of two": ("qwen3_moe", QWEN, lambda: lora("down_proj")),
    "one of two on one layer": ("qwen3_moe", QWEN, lambda: lora("layers.0.mlp.experts.gate_up_proj", ALL[1])),
    "rslora and patterns": (
        "mixtral", MIXTRAL,
        lambda: lora(*ALL, use_rslora=True, rank_pattern={"experts.gate_up_proj": 2},
                     alpha_pattern={"layers.1.mlp.experts.down_proj": 9}),
    ),
    "biases of experts": ("gpt_oss", GPT_OSS, lambda: lora(*ALL, "experts.down_proj_bias")),
    "router": ("mixtral", MIXTRAL, lambda: lora("gate.weight", *ALL)),
    "all linear": ("qwen3_moe", QWEN, lambda: peft.LoraConfig(r=3, target_modules="all-linear")),
}  # fmt: skip


def tensors_of(base: Path, *adapters: str | Path) -> dict[str, np.ndarray]:
    """The checkpoint's tensors as a conversion reads them; those of all experts also expert by expert, in pieces."""
    model = resolve(str(base), {"adapter": list(adapters)}, registry())
    found: dict[str, np.ndarray] = {}
    with Files() as files:
        for name, tensor in model.payload.tensors().items():
            found[name] = np.array(tensor.value(files), np.float32)
            if len(tensor.shape) == 3 and "conv" not in name:
                for number in range(tensor.shape[0]):
                    part = np.array(member(tensor, number).rows(5, 40, files), np.float32)
                    np.testing.assert_array_equal(part, found[name][number][5:40])
    return found


def as_saved(base: Path, folder: Path, *adapters: Path) -> dict[str, np.ndarray]:
    """What peft's merging gives, with the names that transformers gives it in a file."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    for each in adapters:
        model = PeftModel.from_pretrained(model, str(each)).merge_and_unload()
    model.save_pretrained(folder)
    return dict(load_file(folder / "model.safetensors"))


def assert_same(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_the_tensors_are_those_of_merge_and_unload(case: str, tmp_path: Path) -> None:
    family, settings, config = CASES[case]
    base = make_checkpoint(tmp_path / "base", family, **settings)
    adapter = make_adapter(tmp_path / "adapter", base, config())
    plain, found = tensors_of(base), tensors_of(base, adapter)
    assert_same(found, as_saved(base, tmp_path / "merged", adapter))
    assert any("expert" in name or "_linear" in name for name in found if not np.array_equal(plain[name], found[name]))


def adapter_of_each(folder: Path, base: Path, leaves: tuple[str, str, str], at: str = "mlp") -> Path:
    """An adapter as transformers 4 made it: two matrices for each matrix of each expert."""
    generator = np.random.default_rng(3)
    shapes = {name: each.shape for name, each in load_file(base / "model.safetensors").items()}
    width = next(shape[0] for name, shape in shapes.items() if name.endswith(f"0.{leaves[0]}.weight"))
    held: dict[str, Any] = {}
    for layer in range(2):
        for expert in range(4):
            for leaf in leaves:
                outputs, inputs = (64, width) if leaf == leaves[2] else (width, 64)
                name = f"base_model.model.model.layers.{layer}.{at}.experts.{expert}.{leaf}"
                held[f"{name}.lora_A.weight"] = generator.standard_normal((3, inputs)).astype(np.float32) * 0.2
                held[f"{name}.lora_B.weight"] = generator.standard_normal((outputs, 3)).astype(np.float32) * 0.2
    folder.mkdir()
    save_file(held, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 3, "lora_alpha": 5, "target_modules": list(leaves)}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    return folder


OF_EACH = {
    "qwen3_moe": (QWEN, ("gate_proj", "up_proj", "down_proj"), "mlp"),
    "mixtral": (MIXTRAL, ("w1", "w3", "w2"), "block_sparse_moe"),
}


@pytest.mark.parametrize("family", OF_EACH)
def test_adapters_of_transformers_4_are_those_that_peft_converts(family: str, tmp_path: Path) -> None:
    settings, leaves, at = OF_EACH[family]
    base = make_checkpoint(tmp_path / "base", family, **settings)
    adapter = adapter_of_each(tmp_path / "adapter", base, leaves, at)
    assert_same(tensors_of(base, adapter), as_saved(base, tmp_path / "merged", adapter))


def test_an_adapter_of_transformers_4_keeps_the_scaling_that_it_was_trained_with(tmp_path: Path) -> None:
    """peft 0.21 doubles rank and alpha where it joins gate and up, which is another scaling with rsLoRA."""
    settings, leaves, at = OF_EACH["qwen3_moe"]
    base = make_checkpoint(tmp_path / "base", "qwen3_moe", **settings)
    adapter = adapter_of_each(tmp_path / "adapter", base, leaves, at)
    plain, usual = tensors_of(base), tensors_of(base, adapter)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_rslora": True}))
    found = tensors_of(base, adapter)
    for name, value in plain.items():
        np.testing.assert_allclose(found[name] - value, (usual[name] - value) * np.sqrt(3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", OF_EACH)
def test_a_checkpoint_with_all_experts_in_one_tensor_takes_both_kinds(family: str, tmp_path: Path) -> None:
    settings, leaves, at = OF_EACH[family]
    base = make_checkpoint(tmp_path / "base", family, **settings)
    one = make_adapter(tmp_path / "one", base, lora(*ALL, "gate.weight"), seed=1)
    other = adapter_of_each(tmp_path / "other", base, leaves, at)
    stacked = tmp_path / "stacked"
    stacked.mkdir()
    for path in base.iterdir():
        if path.suffix != ".safetensors":
            (stacked / path.name).write_bytes(path.read_bytes())
    save_file(dict(merged_by_peft(base, [])), stacked / "model.safetensors", {"format": "pt"})
    for adapters in ([one], [other], [one, other]):
        wanted = merged_by_peft(base, adapters)
        assert_same(tensors_of(stacked, *adapters), wanted)
    half = {name: value / 2 for name, value in tensors_of(stacked, f"{one}:0.5").items()}
    wanted, plain = merged_by_peft(base, [one]), merged_by_peft(base, [])
    assert_same(half, {name: (value + plain[name]) / 4 for name, value in wanted.items()})


def test_experts_in_four_bits_are_merged_in_floating_point(tmp_path: Path) -> None:
    packed, reference = decoder_families.make("gpt_oss, packed", tmp_path)
    adapter = make_adapter(tmp_path / "adapter", reference, lora(*ALL))
    found, wanted = tensors_of(packed, adapter), tensors_of(reference, adapter)
    for name in (f"model.layers.1.mlp.{each}" for each in ALL):
        np.testing.assert_allclose(found[name], wanted[name].transpose(0, 2, 1), rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
def test_a_package_with_an_adapter_of_experts_is_that_of_the_merged_model(family: str, tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", family, **{"qwen3_moe": QWEN, "gpt_oss": GPT_OSS}[family])
    adapter = make_adapter(tmp_path / "adapter", base, lora(*ALL))
    made = drupe.optimize(base, tmp_path / "out", adapter=[adapter], provider="cpu", precision="fp32")
    assert made.check.metrics["kl_divergence"] < 1e-4
    as_saved(base, tmp_path / "merged", adapter)
    for path in base.glob("tok*"):
        (tmp_path / "merged" / path.name).write_bytes(path.read_bytes())
    metrics = drupe.evaluate(tmp_path / "out", tmp_path / "merged")
    assert {each.name: each.value for each in metrics}["kl_divergence"] < 1e-4


def resaved(adapter: Path, change: Callable[[str, np.ndarray], tuple[str, np.ndarray] | None]) -> None:
    path = adapter / "adapter_model.safetensors"
    pairs = [change(name, value) for name, value in load_file(path).items()]
    save_file({name: np.ascontiguousarray(value) for name, value in filter(None, pairs)}, path, {"format": "pt"})


WRONG: dict[str, tuple[dict[str, Any], Callable[[str, np.ndarray], Any], str]] = {
    "fewer parameters": ({"target_parameters": ALL[1:]}, lambda *each: each, "1 parameter in target_parameters"),
    "no parameters": ({"target_parameters": []}, lambda *each: each, "0 parameters in target_parameters (none)"),
    "another rank": ({"r": 4}, lambda *each: each, "the rank 4, but the adapter's matrices have 12 rows"),
    "another width": (
        {}, lambda name, value: (name, value[:, 1:] if "experts.lora_A" in name else value), "another base model"
    ),
    "a layer that is not there": (
        {}, lambda name, value: (name.replace("layers.1", "layers.7"), value),
        "changes model.layers.7.mlp.experts.gate_up_proj, which this one does not have",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_adapter_of_experts_that_does_not_fit_is_refused(case: str, tmp_path: Path) -> None:
    config, change, message = WRONG[case]
    base = make_checkpoint(tmp_path / "base", "qwen3_moe", **QWEN)
    adapter = make_adapter(tmp_path / "adapter", base, lora(*ALL, target_modules=[]))
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    resaved(adapter, change)
    with pytest.raises(ModelError, match=re.escape(message)):
        tensors_of(base, adapter)


def test_experts_that_are_switched_are_refused_by_name(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "qwen3_moe", **QWEN)
    one = make_adapter(tmp_path / "one", base, lora(*ALL))
    other = adapter_of_each(tmp_path / "other", base, OF_EACH["qwen3_moe"][1])
    for adapter, named in ((one, "model.layers.0.mlp.experts"), (other, "model.layers.0.mlp.experts.0.down_proj")):
        with pytest.raises(ModelError, match=f"it changes the experts {re.escape(named)}") as caught:
            drupe.optimize(base, tmp_path / "out", adapters=[f"name={adapter}"], provider="cpu", verify=False)
        assert f"--adapter {adapter}" in str(caught.value.cure)
    drupe.optimize(base, tmp_path / "out", adapter=[one], provider="cpu", verify=False)  # the cure works


def test_whole_experts_are_refused_where_the_checkpoint_has_them_one_by_one(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "qwen3_moe", **QWEN)
    adapter = make_adapter(tmp_path / "adapter", base, lora(modules_to_save=["experts"], target_parameters=None))
    with pytest.raises(ModelError, match=r"replaces .*experts.* whole, and the experts have matrices of their own"):
        tensors_of(base, adapter)
