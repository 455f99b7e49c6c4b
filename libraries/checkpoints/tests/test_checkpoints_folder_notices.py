"""A folder that says two things is said to: what counts in transformers counts, and a notice tells it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import END, edit_config, make_checkpoint

from drupe.api import ModelError
from drupe_checkpoints import Checkpoint
from drupe_checkpoints.folder_notices import folder_notices
from drupe_checkpoints.stored_tensors import stored_tensors

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("made") / "checkpoint", tie_word_embeddings=False)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "checkpoint"))


def write(folder: Path, name: str, document: Any) -> None:
    (folder / name).write_text(json.dumps(document))


def shard(folder: Path, name: str = "model-00001-of-00001.safetensors") -> Path:
    """The weights once more, under another name and with another first norm, and an index for them."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / SINGLE)
    weights["model.norm.weight"] = weights["model.norm.weight"] + 1
    save_file(weights, folder / name, {"format": "pt"})
    write(folder, INDEX, {"metadata": {}, "weight_map": dict.fromkeys(weights, name)})
    return folder / name


def two_sets_of_weights(folder: Path) -> None:
    shard(folder)


def shards_of_another_model(folder: Path) -> None:
    shard(folder)
    (folder / INDEX).unlink()


def a_tensor_in_two_shards(folder: Path) -> None:
    """The index names the first."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / SINGLE)
    other = {"model.norm.weight": weights["model.norm.weight"] + 1, "lm_head.weight": weights.pop("lm_head.weight")}
    save_file(weights, folder / "model-00001-of-00002.safetensors", {"format": "pt"})
    save_file(other, folder / "model-00002-of-00002.safetensors", {"format": "pt"})
    homes = dict.fromkeys(weights, "model-00001-of-00002.safetensors")
    homes["lm_head.weight"] = "model-00002-of-00002.safetensors"
    write(folder, INDEX, {"metadata": {}, "weight_map": homes})
    (folder / SINGLE).unlink()


def a_shard_that_the_index_leaves_out(folder: Path) -> None:
    shutil.copy(shard(folder), folder / "model-00002-of-00003.safetensors")
    (folder / SINGLE).unlink()


def adapter(folder: Path) -> None:
    write(folder, "adapter_config.json", {"peft_type": "LORA", "r": 4})
    shutil.copy(folder / SINGLE, folder / "adapter_model.safetensors")


def an_adapter_without_its_configuration(folder: Path) -> None:
    shutil.copy(folder / SINGLE, folder / "adapter_model.safetensors")


def an_index_that_is_not_json(folder: Path) -> None:
    (folder / INDEX).write_text("{")


def an_index_without_a_map(folder: Path) -> None:
    write(folder, INDEX, {"metadata": {}})


def an_index_with_numbers_for_files(folder: Path) -> None:
    write(folder, INDEX, {"weight_map": {"lm_head.weight": 3}})


def an_index_of_missing_shards(folder: Path) -> None:
    shard(folder).unlink()


def a_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"x")


def the_makers_own_weights(folder: Path) -> None:
    (folder / "consolidated.safetensors").write_bytes(b"x")
    (folder / "consolidated.00.pth").write_bytes(b"x")


def a_gguf_file(folder: Path) -> None:
    (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF")


def one_file_of_another_name(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "weights.safetensors")


def two_quantizations(folder: Path) -> None:
    scheme = {"bits": 4, "group_size": 32, "sym": True, "desc_act": False}
    edit_config(folder, quantization_config={"quant_method": "gptq", **scheme})
    write(folder, "quantize_config.json", {**scheme, "bits": 8})
    rename(folder, "model.norm.weight", "model.layers.0.mlp.up_proj.qweight")


def a_quantization_left_over(folder: Path) -> None:
    edit_config(folder, quantization_config={"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"})


def rename(folder: Path, name: str, other: str) -> None:
    """Give a tensor the name of one of packed weights."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / SINGLE)
    weights[other] = weights.pop(name)
    save_file(weights, folder / SINGLE, {"format": "pt"})


def an_end_that_generation_does_not_know(folder: Path) -> None:
    edit_config(folder, eos_token_id=[END, 7])
    write(folder, "generation_config.json", {"eos_token_id": END})


def a_generation_without_an_end(folder: Path) -> None:
    write(folder, "generation_config.json", {"temperature": 0.7})


def an_end_of_the_tokenizer(folder: Path) -> None:
    edit_config(folder, eos_token_id=9)
    (folder / "generation_config.json").unlink(missing_ok=True)


def weights_wider_than_said(folder: Path) -> None:
    edit_config(folder, "torch_dtype", dtype="bfloat16")


def two_rotary_sections(folder: Path) -> None:
    linear = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
    edit_config(folder, rope_parameters=linear, rope_scaling={**linear, "factor": 4.0})


def two_thetas(folder: Path) -> None:
    edit_config(folder, rope_parameters={"rope_type": "default", "rope_theta": 500.0}, rope_theta=1000.0)


def code_of_its_own(folder: Path) -> None:
    edit_config(folder, auto_map={"AutoModelForCausalLM": "modeling_acme.AcmeForCausalLM"})


CASES: Mapping[Callable[[Path], None], tuple[str, str, str]] = {
    two_sets_of_weights: ("weights", "chosen", "model.safetensors is read"),
    shards_of_another_model: ("weights", "left out", "model-00001-of-00001.safetensors is not read"),
    a_shard_that_the_index_leaves_out: ("weights", "left out", "model-00002-of-00003.safetensors is not read"),
    a_tensor_in_two_shards: ("weights", "chosen", "both hold the tensor model.norm.weight; that of model-00002"),
    adapter: ("adapter", "left out", "an adapter (LORA)"),
    an_adapter_without_its_configuration: ("adapter", "left out", "adapter_model.safetensors is an adapter's weights"),
    an_index_that_is_not_json: ("weights", "chosen", "the index is broken: it is not JSON"),
    an_index_without_a_map: ("weights", "chosen", "it lacks weight_map"),
    an_index_with_numbers_for_files: ("weights", "chosen", "does not name a file for each tensor"),
    an_index_of_missing_shards: ("weights", "chosen", "model-00001-of-00001.safetensors is missing"),
    a_pickle: ("weights", "left out", "pytorch_model.bin is not read"),
    the_makers_own_weights: ("weights", "left out", "consolidated.00.pth, consolidated.safetensors are not read"),
    a_gguf_file: ("weights", "left out", "model-Q4_K_M.gguf is not read"),
    one_file_of_another_name: ("weights", "chosen", "weights.safetensors is read"),
    two_quantizations: ("config.json", "chosen", "bits is 4 and 8"),
    a_quantization_left_over: ("config.json", "has no effect", "bitsandbytes quantized the weights"),
    an_end_that_generation_does_not_know: ("generation_config.json", "chosen", "does not end with token 7"),
    a_generation_without_an_end: ("generation_config.json", "chosen", f"does not end with token {END}"),
    an_end_of_the_tokenizer: ("config.json", "chosen", f"does not end with <|end|> (token {END})"),
    weights_wider_than_said: ("config.json", "has no effect", "float32, although config.json says bfloat16"),
    two_rotary_sections: ("config.json", "chosen", "rope_scaling counts"),
    two_thetas: ("config.json", "chosen", "rope_theta = 500.0 in rope_parameters counts"),
    code_of_its_own: ("config.json", "left out", "modeling_acme.AcmeForCausalLM"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_folder_that_says_two_things_is_said_to(case: Callable[[Path], None], folder: Path) -> None:
    case(folder)
    (notice,) = folder_notices(Checkpoint.open_folder(folder))
    about, handling, said = CASES[case]
    assert (notice.about, notice.handling) == (about, handling)
    assert said in notice.what
    assert "transformers" in notice.what + notice.cure


ORDINARY: Mapping[str, Callable[[Path], object]] = {
    "as saved": lambda folder: None,
    "ends that config.json does not name": lambda folder: write(
        folder, "generation_config.json", {"eos_token_id": [END, 5]}
    ),
    "what a training run keeps": lambda folder: [
        (folder / name).write_bytes(b"x") for name in ("training_args.bin", "optimizer.pt", "rng_state_0.pth")
    ],
    "an index of the one file": lambda folder: write(folder, INDEX, {"weight_map": {"lm_head.weight": SINGLE}}),
    "a type that holds the stored one": lambda folder: edit_config(folder, "dtype", torch_dtype="float32"),
    "one theta, written twice": lambda folder: edit_config(
        folder, rope_theta=500.0, rope_parameters={"rope_type": "default", "rope_theta": 500.0}
    ),
    "an end of the tokenizer that the model cannot write": lambda folder: edit_config(
        folder, "eos_token_id", vocab_size=END
    ),
    "the maker's own files": lambda folder: (folder / "original").mkdir(),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_folders_give_no_notice(name: str, folder: Path) -> None:
    ORDINARY[name](folder)
    assert folder_notices(Checkpoint.open_folder(folder)) == ()


@pytest.mark.parametrize("model_type", ["granite", "mistral", "qwen2", "qwen3"])
def test_what_transformers_saves_gives_no_notice(model_type: str, tmp_path: Path) -> None:
    assert folder_notices(Checkpoint.open_folder(make_checkpoint(tmp_path / "checkpoint", model_type))) == ()


WHICH = [two_sets_of_weights, shards_of_another_model, a_shard_that_the_index_leaves_out, a_tensor_in_two_shards]


@pytest.mark.parametrize("case", WHICH)
def test_the_weights_that_are_read_are_those_that_transformers_reads(
    case: Callable[[Path], None], folder: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    from drupe_onnx import Files

    case(folder)
    checkpoint = Checkpoint.open_folder(folder)
    with Files() as files:
        norm = checkpoint.tensors()["model.norm.weight"].value(files)
    expected = transformers.AutoModelForCausalLM.from_pretrained(folder).model.norm.weight.detach().float().numpy()
    np.testing.assert_array_equal(norm, expected)
    stored, summary = stored_tensors(folder), checkpoint.summary()
    assert stored is not None
    assert summary is not None
    assert summary.bytes == sum(tensor.nbytes for tensor in stored.values())


@pytest.mark.parametrize(
    ("name", "says"),
    [("adapter_model.safetensors", "an adapter's, not a model's"), ("consolidated.safetensors", "own programs")],
)
def test_weights_that_are_no_model_of_transformers_are_not_read_as_one(name: str, says: str, folder: Path) -> None:
    (folder / SINGLE).rename(folder / name)
    with pytest.raises(ModelError, match=says) as caught:
        Checkpoint.open_folder(folder).tensors()
    assert caught.value.cure


@pytest.mark.parametrize(("name", "says"), [("adapter_model.safetensors", "an adapter"), ("a.gguf", "1 GGUF file")])
def test_a_folder_without_a_configuration_is_named_for_what_it_holds(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=says) as caught:
        Checkpoint.open_folder(tmp_path)
    assert caught.value.cure


def test_an_end_that_only_config_json_names_counts_where_there_is_no_generation_config(folder: Path) -> None:
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert Checkpoint.open_folder(folder).end_tokens == (END,)


@pytest.mark.parametrize(
    ("name", "content"), [("adapter_config.json", "["), ("quantize_config.json", "[1]"), (INDEX, "{}"), (INDEX, "no")]
)
def test_a_broken_file_beside_is_no_reason_for_an_error_here(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content)
    folder_notices(Checkpoint.open_folder(folder))
