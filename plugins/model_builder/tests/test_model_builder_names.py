"""Names of tensors: a decoder is found whatever stands before its names."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from drupe.api import ModelError, Target

PREFIXES = {
    "none": ("", ""),
    "language_model": ("language_model.model.", "language_model."),
    "language model inside": ("model.language_model.", ""),
    "language model inside, head beside": ("model.language_model.", "model."),
    "text decoder alone": ("language_model.", ""),
    "peft": ("base_model.model.model.", "base_model.model."),
    "torch.compile": ("_orig_mod.model.", "_orig_mod."),
    "DDP": ("module.model.", "module."),
    "transformer": ("transformer.", ""),
}
"""What stands before the names of the decoder's tensors, and before that of its head."""


def renamed(folder: Path, base: str, head: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = {
        name: head + name if name.startswith("lm_head") else base + name.removeprefix("model.") for name in tensors
    }
    save_file({names[name]: tensor for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


@pytest.fixture
def folder(kit: SimpleNamespace, tmp_path: Path) -> Path:
    return kit.make_checkpoint(tmp_path / "checkpoint", "qwen3", tie_word_embeddings=False)


@pytest.fixture
def expected(folder: Path, kit: SimpleNamespace, cpu: Target, tmp_path: Path) -> bytes:
    return built(folder, kit, cpu, tmp_path / "expected")


def built(folder: Path, kit: SimpleNamespace, cpu: Target, out: Path) -> bytes:
    package = kit.build(folder, cpu, out)
    return (package / "model.onnx").read_bytes() + (package / "model.onnx.data").read_bytes()


@pytest.mark.parametrize("name", PREFIXES)
def test_a_decoder_is_found_behind_any_prefix(
    name: str, folder: Path, expected: bytes, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    renamed(folder, *PREFIXES[name])
    assert built(folder, kit, cpu, tmp_path / "out") == expected


@pytest.mark.parametrize("plain", [True, False], ids=["most without the prefix", "most with it"])
def test_single_tensors_may_be_saved_with_or_without_the_prefix(
    plain: bool, folder: Path, expected: bytes, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    tensors = load_file(folder / "model.safetensors")
    other = {name for name in tensors if (".layers.2." in name) != plain}
    mixed = {name.removeprefix("model.") if name in other else name: tensor for name, tensor in tensors.items()}
    save_file(mixed, folder / "model.safetensors", {"format": "pt"})
    assert built(folder, kit, cpu, tmp_path / "out") == expected


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
def test_wrappers_are_taken_out_of_names_wherever_they_stand(
    folder: Path, expected: bytes, kit: SimpleNamespace, cpu: Target, tmp_path: Path, wrapper: str
) -> None:
    tensors = load_file(folder / "model.safetensors")
    inside = {name.replace("self_attn.", f"{wrapper}self_attn."): tensor for name, tensor in tensors.items()}
    save_file(inside, folder / "model.safetensors", {"format": "pt"})
    assert built(folder, kit, cpu, tmp_path / "out") == expected


def test_a_tied_model_may_hold_its_embedding_as_the_head_alone(
    kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    folder = kit.make_checkpoint(tmp_path / "checkpoint", "qwen3", tie_word_embeddings=True)
    wanted = built(folder, kit, cpu, tmp_path / "expected")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    renamed(folder, "language_model.model.", "language_model.")
    assert built(folder, kit, cpu, tmp_path / "out") == wanted


def test_a_head_may_have_the_name_that_transformers_gives_it_in_its_own_form(
    kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    folder = kit.make_checkpoint(tmp_path / "checkpoint", "gpt_neox", tie_word_embeddings=False)
    wanted = built(folder, kit, cpu, tmp_path / "expected")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert built(folder, kit, cpu, tmp_path / "out") == wanted


@pytest.mark.parametrize(
    ("copied", "named"),
    [
        (lambda name: f"draft.{name}", "several decoders .* draft.model.layers.0.*, model.layers.0"),
        (lambda name: f"_orig_mod.{name}", "several tensors"),
    ],
)
def test_two_decoders_are_refused(
    copied: object, named: str, folder: Path, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    tensors = load_file(folder / "model.safetensors")
    both = tensors | {copied(name): tensor + 1 for name, tensor in tensors.items()}  # type: ignore[operator]
    save_file(both, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=named):
        kit.build(folder, cpu, tmp_path / "out")


def test_two_heads_are_refused_but_one_of_another_module_is_not_taken_for_the_decoders(
    folder: Path, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    renamed(folder, "language_model.model.", "language_model.")
    tensors = load_file(folder / "model.safetensors")
    for other, named in (("lm_head.weight", "several heads"), ("draft.lm_head.weight", "draft.lm_head")):
        more = {**tensors, other: np.zeros_like(tensors["language_model.lm_head.weight"])}
        save_file(more, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match=named):
            kit.build(folder, cpu, tmp_path / other)


def test_an_adapter_that_is_not_merged_is_refused(
    folder: Path, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.lora_A.default.weight"] = np.zeros((4, 64), np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"not merged.*lora_A"):
        kit.build(folder, cpu, tmp_path / "out")


def test_only_a_tensor_that_is_needed_and_missing_is_an_error_of_an_index(
    folder: Path, expected: bytes, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    shards = {one: list(tensors)[:9], two: list(tensors)[9:]}
    for shard, names in shards.items():
        save_file({name: tensors[name] for name in names}, folder / shard, {"format": "pt"})
    home = {name: shard for shard, names in shards.items() for name in names}
    home.pop("model.norm.weight")  # a shard has it
    home["model.layers.0.self_attn.rotary_emb.inv_freq"] = one  # no shard has it
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": home}))
    assert built(folder, kit, cpu, tmp_path / "out") == expected
    rest = {name: tensors[name] for name in shards[two] if "layers.2.mlp.up" not in name}
    save_file(rest, folder / two, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks a tensor .*layers.2.mlp.up_proj"):
        kit.build(folder, cpu, tmp_path / "again")
