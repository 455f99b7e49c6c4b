"""Adapters in peft's format are merged on the way in, and give what peft's merge_and_unload() gives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import make_adapter, merged_by_peft
from packed import quantize_checkpoint
from tiny import make_checkpoint

import drupe
from drupe.api import ModelError, Plan, PlanError, UsageError, registry, resolve
from drupe_onnx import Files

peft = pytest.importorskip("peft")
GPT2 = {"n_embd": 64, "n_head": 4, "n_layer": 2}
LAYER = ["q_proj", "v_proj", "down_proj"]


def lora(**settings: Any) -> Any:
    return peft.LoraConfig(**{"r": 4, "target_modules": LAYER, **settings})


CASES: dict[str, tuple[str, dict[str, Any], Callable[[], Any]]] = {
    "lora": ("llama", {}, lambda: lora(lora_alpha=12)),
    "rslora": ("llama", {}, lambda: lora(use_rslora=True)),
    "dora": ("llama", {}, lambda: lora(use_dora=True)),
    "loha": ("llama", {}, lambda: peft.LoHaConfig(r=3, alpha=5, target_modules=LAYER)),
    "lokr": ("llama", {}, lambda: peft.LoKrConfig(r=3, alpha=5, target_modules=LAYER)),
    "lokr of products": (
        "llama", {}, lambda: peft.LoKrConfig(r=1, alpha=2, target_modules=LAYER, decompose_both=True)
    ),
    "patterns": (
        "llama", {}, lambda: lora(rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 6}, alpha_pattern={"v_proj": 3})
    ),
    "stored by inputs": ("gpt2", GPT2, lambda: lora(target_modules=["c_attn", "c_proj"])),
    "stored by inputs, dora": (
        "gpt2", GPT2, lambda: lora(target_modules=["c_attn"], use_dora=True)
    ),
    "biases": ("qwen2", {}, lambda: lora(bias="all")),
    "biases of its modules": ("qwen2", {}, lambda: lora(bias="lora_only", target_modules=["q_proj"])),
    "a bias of its own": ("qwen2", {}, lambda: lora(lora_bias=True, target_modules=["q_proj"])),
    "whole modules": ("llama", {"tie_word_embeddings": False}, lambda: lora(modules_to_save=["lm_head", "norm"])),
    "embedding": ("llama", {"tie_word_embeddings": False}, lambda: lora(target_modules=["embed_tokens", "q_proj"])),
    "embedding, dora": (
        "llama", {"tie_word_embeddings": False}, lambda: lora(target_modules=["embed_tokens"], use_dora=True)
    ),
    "tied embedding": ("qwen2", {"tie_word_embeddings": True}, lambda: lora(target_modules=["embed_tokens", "q_proj"])),
    "tied head": ("qwen2", {"tie_word_embeddings": True}, lambda: lora(target_modules=["lm_head", "q_proj"])),
    "head of its own for a tied model": (
        "qwen2", {"tie_word_embeddings": True}, lambda: lora(modules_to_save=["lm_head"])
    ),
    "embedding of its own for a tied model": (
        "qwen2", {"tie_word_embeddings": True}, lambda: lora(modules_to_save=["embed_tokens"])
    ),
    "tokens": ("qwen2", {"tie_word_embeddings": True}, lambda: lora(trainable_token_indices=[7, 2, 300])),
    "experts": (
        "mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, lambda: lora(target_modules=["q_proj", "o_proj"])
    ),
}  # fmt: skip


def tensors_of(base: Path, *adapters: str | Path) -> dict[str, np.ndarray]:
    """The checkpoint's tensors with adapters, as a conversion reads them; each also in pieces of both kinds."""
    model = resolve(str(base), {"adapter": list(adapters)}, registry())
    found: dict[str, np.ndarray] = {}
    with Files() as files:
        for name, tensor in model.payload.tensors().items():
            found[name] = np.array(tensor.value(files), np.float32)
            if len(tensor.shape) == 2 and tensor.shape[0] > 9:
                columns = tensor.shape[1]
                np.testing.assert_array_equal(np.array(tensor.rows(3, 9, files), np.float32), found[name][3:9])
                part = np.array(tensor.columns(5, columns - 2, files), np.float32)
                np.testing.assert_allclose(part, found[name][:, 5:-2], rtol=1e-5, atol=1e-5)
    return found


def assert_as_peft(found: dict[str, np.ndarray], wanted: Any, tolerance: float = 2e-6) -> None:
    """Each of transformers' parameters, whatever prefix the checkpoint gives its name."""
    tied = "lm_head.weight" in wanted and not any(name.endswith("lm_head.weight") for name in found)
    for name, value in wanted.items():
        if tied and name == "lm_head.weight":
            continue
        own = next((each for each in (name, name.removeprefix("transformer.")) if each in found), None)
        if own is None:
            continue  # buffers, and experts that are stacked when they are loaded
        np.testing.assert_allclose(found[own], value, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_the_tensors_are_those_of_merge_and_unload(case: str, tmp_path: Path) -> None:
    family, settings, config = CASES[case]
    base = make_checkpoint(tmp_path / "base", family, **settings)
    adapter = make_adapter(tmp_path / "adapter", base, config())
    plain, found = tensors_of(base), tensors_of(base, adapter)
    changed = [name for name in found if name not in plain or not np.array_equal(found[name], plain[name])]
    assert changed
    wanted = merged_by_peft(base, [adapter])
    assert_as_peft(found, wanted)
    assert len(set(changed) & {*wanted, *(name.removeprefix("transformer.") for name in wanted)}) == len(changed)
    separate = wanted.get("lm_head.weight") is not None and not np.array_equal(
        wanted["lm_head.weight"], wanted.get("model.embed_tokens.weight", wanted["lm_head.weight"])
    )
    assert not separate or "lm_head.weight" in found


def test_sums_are_rounded_once_to_the_type_of_the_base(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", dtype="bfloat16")
    adapter = make_adapter(tmp_path / "adapter", base, lora())
    exact = merged_by_peft(base, [adapter])
    found = tensors_of(base, adapter)
    for name, value in exact.items():
        if name in found:
            np.testing.assert_allclose(found[name], value, rtol=2**-8, atol=2**-9)


def test_several_adapters_are_added_each_times_its_weight(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", tie_word_embeddings=False)
    one = make_adapter(tmp_path / "one", base, lora(modules_to_save=["lm_head"]), seed=1)
    other = make_adapter(tmp_path / "other", base, lora(use_dora=True, target_modules=["q_proj"]), seed=2)
    plain, first, second = tensors_of(base), tensors_of(base, one), tensors_of(base, other)
    both = tensors_of(base, one, f"{other}:-0.5")
    for name, value in plain.items():
        wanted = first[name] - 0.5 * (second[name] - value)
        np.testing.assert_allclose(both[name], wanted, rtol=1e-5, atol=1e-5)


def test_tied_weights_that_an_adapter_keeps_tied_change_once(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "qwen2", tie_word_embeddings=True)
    both = lora(target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True)
    adapter = make_adapter(tmp_path / "adapter", base, both)
    from safetensors.numpy import load_file

    held = load_file(adapter / "adapter_model.safetensors")
    first, second = (held[f"base_model.model.model.embed_tokens.lora_embedding_{each}"] for each in "AB")
    name = "model.embed_tokens.weight"
    wanted = tensors_of(base)[name] + (second @ first).T * 2
    np.testing.assert_allclose(tensors_of(base, adapter)[name], wanted, rtol=1e-5, atol=1e-5)


def test_a_package_with_an_adapter_is_that_of_the_merged_model(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", "qwen2", tie_word_embeddings=True)
    adapter = make_adapter(tmp_path / "adapter", base, lora(target_modules=[*LAYER, "embed_tokens"], use_dora=True))
    made = drupe.optimize(base, tmp_path / "out", adapter=[adapter], provider="cpu", precision="fp32")
    assert made.check.metrics["kl_divergence"] < 1e-4
    record = json.loads((tmp_path / "out" / "drupe.json").read_text())
    assert record["plan"]["source"]["options"] == {"adapter": [str(adapter)]}
    assert any(each["about"] == "adapter" and each["handling"] == "merged" for each in record["notices"])
    merged = tmp_path / "merged"
    _merged_with_peft(base, adapter, merged)
    metrics = drupe.evaluate(tmp_path / "out", merged)
    assert {each.name: each.value for each in metrics}["kl_divergence"] < 1e-4
    again = drupe.evaluate(tmp_path / "out", base)  # its own source is the base with the adapter
    assert {each.name: each.value for each in again}["kl_divergence"] < 1e-4
    plan = Plan.model_validate(record["plan"])
    drupe.run(plan, tmp_path / "again")
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_quantized_base_is_merged_in_floating_point_and_the_user_is_told(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", hidden_size=128, intermediate_size=192, tie_word_embeddings=False)
    adapter = make_adapter(tmp_path / "adapter", base, lora())
    quantize_checkpoint(base, tmp_path / "quantized", "gptq")
    plain, found = tensors_of(tmp_path / "quantized"), tensors_of(tmp_path / "quantized", adapter)
    change = {name: value - plain[name] for name, value in found.items()}
    floats = {name: value - tensors_of(base)[name] for name, value in tensors_of(base, adapter).items()}
    for name, value in floats.items():
        np.testing.assert_allclose(change[name], value, atol=1e-5)
    made = drupe.optimize(tmp_path / "quantized", tmp_path / "out", adapter=[adapter], provider="cpu")
    assert made.check.metrics["kl_divergence"] < 0.1
    record = json.loads((tmp_path / "out" / "drupe.json").read_text())
    assert any("quantized again" in each["what"] for each in record["notices"])


def test_a_plan_is_not_run_with_another_adapter(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base, lora())
    drupe.optimize(base, tmp_path / "out", adapter=str(adapter), provider="cpu")
    plan = Plan.model_validate(json.loads((tmp_path / "out" / "drupe.json").read_text())["plan"])
    shutil.rmtree(adapter)
    make_adapter(adapter, base, lora(), seed=5)
    with pytest.raises(PlanError, match="the source has changed"):
        drupe.run(plan, tmp_path / "again")


def _merged_with_peft(base: Path, adapter: Path, folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    shutil.copytree(base, folder)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    model.merge_and_unload().save_pretrained(folder)


def resaved(adapter: Path, **tensors: Any) -> None:
    """Change an adapter's tensors: None removes one, an array replaces it."""
    from safetensors.numpy import load_file, save_file

    path = adapter / "adapter_model.safetensors"
    held = {name: value for name, value in {**load_file(path), **tensors}.items() if value is not None}
    save_file(held, path)


Q = "base_model.model.model.layers.0.self_attn.q_proj"
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another method": ({"peft_type": "IA3"}, {}, "the type \"IA3\" are not merged"),
    "a key that asks for more": ({"alora_invocation_tokens": [1]}, {}, "alora_invocation_tokens is"),
    "PiSSA": ({"init_lora_weights": "pissa"}, {}, "init_lora_weights is \"pissa\""),
    "another rank": ({"r": 8}, {}, "the rank 8, but the adapter's matrices have rank 4"),
    "no B": ({}, {f"{Q}.lora_B.weight": None}, "lacks lora_B of model.layers.0.self_attn.q_proj"),
    "no A": ({}, {f"{Q}.lora_A.weight": None}, "lacks lora_A of"),
    "no magnitude": ({"use_dora": True}, {}, "lacks lora_magnitude_vector of"),
    "another width": ({}, {f"{Q}.lora_A.weight": np.zeros((4, 32), np.float32)}, "another base model: it changes"),
    "a module that is not there": ({}, {"base_model.model.model.layers.9.x.weight": np.zeros((2, 2), np.float32)},
                                   "changes model.layers.9.x.weight, which this one does not have"),
    "tensors of another method": ({}, {f"{Q}.lokr_w1": np.zeros((2, 2), np.float32)}, "lokr_w1 is not one of LoRA"),
    "whole numbers": ({}, {f"{Q}.lora_A.weight": np.zeros((4, 64), np.int32)}, "holds int32, not floating-point"),
    "a number as a matrix": ({}, {f"{Q}.lora_A.weight": np.zeros((), np.float32)}, "lora_A of .* is no matrix"),
    "half a rank": ({"r": 4.5}, {}, "the rank of .* is 4.5, no whole number"),
    "a text for a scaling": ({"alpha_pattern": {"q_proj": "x"}}, {}, "q_proj = \"x\" in alpha_pattern of"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_adapter_that_cannot_be_merged_is_refused_before_anything_is_written(case: str, tmp_path: Path) -> None:
    config, tensors, message = WRONG[case]
    base = make_checkpoint(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base, lora())
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    resaved(adapter, **tensors)
    with pytest.raises(ModelError, match=message):
        drupe.optimize(base, tmp_path / "out", adapter=adapter, provider="cpu", verify=False)
    assert not (tmp_path / "out").exists()


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base")
    found = registry()
    with pytest.raises(ModelError, match="there is no adapter"):
        resolve(str(base), {"adapter": tmp_path / "nowhere"}, found)
    with pytest.raises(ModelError, match="holds no adapter"):
        resolve(str(base), {"adapter": base}, found)
    adapter = make_adapter(tmp_path / "adapter", base, lora())
    with pytest.raises(UsageError, match="no effect"):
        resolve(str(base), {"adapter": f"{adapter}:0"}, found)
    with pytest.raises(UsageError, match="'half' is not the weight of an adapter") as no_weight:
        resolve(str(base), {"adapter": f"{adapter}:half"}, found)
    assert no_weight.value.cure == f"--adapter {adapter}:0.5"
    with pytest.raises(UsageError, match="twice"):
        resolve(str(base), {"adapter": [adapter, f"{adapter}:2"]}, found)
    with pytest.raises(ModelError, match="adapter, not a model") as caught:
        resolve(str(adapter), {}, found)
    assert "--adapter" in str(caught.value.cure)


@pytest.mark.parametrize("option", ["adapter", "adapters"])
def test_a_value_that_is_no_path_is_the_callers_mistake_and_disables_no_plugin(tmp_path: Path, option: str) -> None:
    base = make_checkpoint(tmp_path / "base")
    for value in (5, [5], {"fr": "here"}):
        with pytest.raises(UsageError, match=f"--{option} takes a path"):
            drupe.plan(base, **{option: value})
    assert drupe.plan(base, quality="fast").source.kind == "hf"


@pytest.mark.parametrize("option", ["adapter", "adapters"])
def test_there_is_no_plan_for_an_adapter_of_another_base(tmp_path: Path, option: str) -> None:
    base = make_checkpoint(tmp_path / "base")
    other = make_checkpoint(tmp_path / "other", num_hidden_layers=3)
    adapter = make_adapter(tmp_path / "adapter", other, lora(target_modules=["q_proj"]))
    with pytest.raises(ModelError, match=r"for another base model: it changes .*layers\.2\.self_attn\.q_proj"):
        drupe.plan(base, **{option: adapter})


def test_a_key_that_nobody_knows_is_a_notice(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base")
    adapter = make_adapter(tmp_path / "adapter", base, lora())
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_rslorra": True}))
    model = resolve(str(base), {"adapter": adapter}, registry())
    (notice,) = [each for each in model.notices if each.about == "adapter_config.json"]
    assert "'use_rslorra' (did you mean use_rslora?)" in notice.what


def test_every_key_of_pefts_configurations_is_accounted_for() -> None:
    import dataclasses

    from drupe_checkpoints.adapters.configuration import KNOWN

    for config in (peft.LoraConfig, peft.LoHaConfig, peft.LoKrConfig):
        assert {field.name for field in dataclasses.fields(config)} <= KNOWN


def test_names_of_another_prefix_are_found(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    base = make_checkpoint(tmp_path / "base", "gpt2", **GPT2)
    adapter = make_adapter(tmp_path / "adapter", base, lora(target_modules=["c_attn"]))
    wanted = tensors_of(base, adapter)
    held = load_file(base / "model.safetensors")
    for prefix in ("", "language_model.transformer."):
        renamed = {prefix + name.removeprefix("transformer."): value for name, value in held.items()}
        save_file(renamed, base / "model.safetensors", {"format": "pt"})
        found = tensors_of(base, adapter)
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[prefix + name.removeprefix("transformer.")], value)
