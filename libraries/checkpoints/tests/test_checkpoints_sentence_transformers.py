"""What sentence-transformers' files say of pooling, prompts and lengths, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drupe.api import ModelError
from drupe_checkpoints import Dense, dense_weights, open_checkpoint, sentence_modules
from drupe_checkpoints.folder_notices import folder_notices
from drupe_checkpoints.sentence_transformers import sentence_files

POOLING = {"word_embedding_dimension": 64, "pooling_mode_lasttoken": True}


def files(
    pooling: Any = None, kinds: tuple[str, ...] = ("Transformer", "Pooling", "Normalize"), **others: Any
) -> dict[str, Path | bytes]:
    listed = [{"path": f"{at}_{kind}" if at else "", "type": f"a.b.{kind}"} for at, kind in enumerate(kinds)]
    found = {"modules.json": listed, "1_Pooling/config.json": POOLING if pooling is None else pooling, **others}
    return {name: json.dumps(value).encode() for name, value in found.items()}


DENSE = {"in_features": 64, "out_features": 16, "bias": True, "activation_function": "torch.nn.modules.linear.Identity"}
WITH_DENSE = ("Transformer", "Pooling", "Dense", "Normalize")


def with_dense(**changed: Any) -> dict[str, Path | bytes]:
    return files(kinds=WITH_DENSE, **{"2_Dense/config.json": {**DENSE, **changed}})


def test_layers_after_pooling_are_read_with_their_defaults() -> None:
    found = sentence_modules(with_dense())
    assert found.dense == (Dense("2_Dense/config.json", 64, 16, True, "Identity"),) and found.normalized
    told = {key: value for key, value in DENSE.items() if key.endswith("features")}
    found = sentence_modules(files(kinds=WITH_DENSE, **{"2_Dense/config.json": told}))
    assert found.dense == (Dense("2_Dense/config.json", 64, 16, True, "Tanh"),)


def test_weights_of_a_layer_are_checked_and_go_with_the_files(tmp_path: Path) -> None:
    for name, content in with_dense().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else b"")
    dense = sentence_modules(sentence_files(tmp_path)).dense[0]
    with pytest.raises(ModelError, match=r"2_Dense/model\.safetensors is missing"):
        dense_weights(sentence_files(tmp_path), dense)
    (tmp_path / "2_Dense" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="are a pickle"):
        dense_weights(sentence_files(tmp_path), dense)
    write(tmp_path / "2_Dense" / "model.safetensors", {"linear.weight": (16, 64), "linear.bias": (16,)})
    found = sentence_files(tmp_path)
    assert "2_Dense/model.safetensors" in found and dense_weights(found, dense).matrix.shape == (16, 64)
    for wrong in ({"linear.weight": (16, 64)}, {"linear.weight": (64, 16), "linear.bias": (16,)}):
        write(tmp_path / "2_Dense" / "model.safetensors", wrong)
        with pytest.raises(ModelError, match=r"asks for linear\.bias \[16\], linear\.weight \[16, 64\], but"):
            dense_weights(found, dense)


def write(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)


@pytest.mark.parametrize(
    ("pooling", "modes"),
    [
        (POOLING, ("lasttoken",)),
        ({"pooling_mode": "cls"}, ("cls",)),
        ({"pooling_mode": ["mean", "max"]}, ("mean", "max")),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode_mean_tokens": False}, ("mean",)),
    ],
)
def test_the_modes_of_both_forms_are_read(pooling: Any, modes: tuple[str, ...]) -> None:
    assert sentence_modules(files(pooling)).modes == modes


def test_the_rest_of_the_files_is_read() -> None:
    others = {
        "config_sentence_transformers.json": {
            "prompts": {"query": "q: ", "document": None},
            "default_prompt_name": None,
        },
        "sentence_bert_config.json": {"max_seq_length": 77, "do_lower_case": False},
    }
    found = sentence_modules(files(**others))
    assert (found.width, found.normalized, found.max_length) == (64, True, 77)
    assert (found.prompts, found.default_prompt) == ({"query": "q: ", "document": ""}, None)
    assert not sentence_modules(files(kinds=("Transformer", "Pooling"))).normalized
    assert sentence_modules({}).modes == ()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (files({"pooling_mode": "lastoken"}), "unknown pooling mode 'lastoken'; did you mean lasttoken"),
        (files({"pooling_mode": 3}), "unknown pooling mode '3'"),
        (files({"pooling_mode": []}), "unknown pooling mode"),
        (files({"pooling_mode_median": True}), "unknown pooling mode 'pooling_mode_median'"),
        (files({**POOLING, "word_embedding_dimension": "x"}), "no number of values"),
        (files([]), "not a JSON object"),
        (files(kinds=("Transformer", "Dense")), "a module 'Dense', which is not built"),
        (files(kinds=("Transformer", "Pooling", "Normalize", "Dense")), "a module 'Dense', which is not built"),
        (files(kinds=("Transformer", "Pooling", "Dense")), r"lists a Dense, but there is no 2_Dense/config\.json"),
        (with_dense(in_features="64"), "a number of values as in_features, not '64'"),
        (with_dense(out_features=0), "a number of values as out_features, not 0"),
        (with_dense(bias=1), "true or false as bias, not 1"),
        (with_dense(activation_function="torch.nn.modules.activation.Tahn"), "did you mean Tanh"),
        (with_dense(activation_function="acme.Tanh"), r"unknown activation function 'acme\.Tanh'"),
        (with_dense(activation_function="torch.nn.modules.activation.GELU"), "unknown activation function 'GELU'"),
        (with_dense(use_residual=True), "use_residual"),
        (with_dense(module_input_name="token_embeddings"), "reads 'token_embeddings'"),
        (files(kinds=("Transformer", "Pooling", "Pooling")), "a module 'Pooling', which is not built"),
        (files(kinds=("StaticEmbedding", "Pooling")), "a module 'StaticEmbedding'"),
        (files(**{"sentence_bert_config.json": {"do_lower_case": True}}), "do_lower_case"),
        (files(**{"sentence_bert_config.json": {"max_seq_length": 0}}), "max_seq_length"),
        (files(**{"config_sentence_transformers.json": {"prompts": ["a"]}}), "no texts as prompts"),
        (files(**{"config_sentence_transformers.json": {"default_prompt_name": "q"}}), "the default prompt 'q'"),
        (
            files(
                {"pooling_mode": "mean", "include_prompt": False},
                **{"config_sentence_transformers.json": {"prompts": {"query": "q: "}}},
            ),
            "include_prompt = false",
        ),
        ({**files(), "modules.json": b"{"}, "not JSON"),
        ({**files(), "modules.json": b"{}"}, "not a list"),
        ({**files(), "modules.json": b'[{"path": "../x", "type": "a.Transformer"}]'}, "outside the folder"),
        ({"modules.json": files()["modules.json"]}, "there is no 1_Pooling/config.json"),
    ],
)
def test_what_is_wrong_is_one_error_that_names_the_file(given: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says) as raised:
        sentence_modules(given)
    assert raised.value.where and raised.value.cure


def test_prompts_that_the_last_token_reads_anyway_are_no_contradiction() -> None:
    prompts = {"config_sentence_transformers.json": {"prompts": {"query": "q: "}}}
    assert sentence_modules(files({**POOLING, "include_prompt": False}, **prompts)).modes == ("lasttoken",)


def test_a_folder_that_pools_is_a_model_of_embeddings_whatever_its_class(tmp_path: Path) -> None:
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_checkpoint(tmp_path).task == "text-generation"
    (tmp_path / "1_Pooling").mkdir()
    for name, content in files().items():
        assert isinstance(content, bytes)
        if name != "2_Normalize/config.json":
            (tmp_path / name).write_bytes(content)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.task == "feature-extraction"
    assert set(sentence_files(tmp_path)) == {"modules.json", "1_Pooling/config.json"}
    assert any("a model of embeddings" in notice.what for notice in folder_notices(checkpoint))
