"""The pass package-genai: the files that it writes follow the graph, the checkpoint and the target."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drupe.api import Context, Device, Model, ModelError, Target, replace
from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
from drupe_onnx import initializers_of, weight_bytes
from drupe_onnxruntime.genai.package_genai import PackageGenai, PackageGenaiConfig


def built(checkpoint: Path, target: Target, tmp_path: Path) -> tuple[Model, Context]:
    context = Context(target, tmp_path, threads=3)
    return BuildDecoder().run(Model("hf", checkpoint), BuildDecoderConfig(), context), context


def packaged(checkpoint: Path, target: Target, tmp_path: Path, **config: Any) -> dict[str, Any]:
    """genai_config.json for a checkpoint on a target."""
    model, context = built(checkpoint, target, tmp_path)
    files = PackageGenai().run(model, PackageGenaiConfig(**config), context).payload.files
    document: dict[str, Any] = json.loads(files["genai_config.json"])
    return document


def session_options(document: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = document["model"]["decoder"]["session_options"]
    return options


def test_a_package_for_this_processor_has_the_number_of_threads_of_the_run(
    checkpoint: Path, cpu: Target, tmp_path: Path
) -> None:
    options = session_options(packaged(checkpoint, cpu, tmp_path))
    assert options["intra_op_num_threads"] == 3
    assert options["provider_options"] == []


def test_a_package_for_another_machine_states_no_number_of_threads(
    checkpoint: Path, cpu: Target, tmp_path: Path
) -> None:
    elsewhere = replace(cpu, device=None)
    assert "intra_op_num_threads" not in session_options(packaged(checkpoint, elsewhere, tmp_path))


def test_a_package_for_a_gpu_names_its_provider_and_no_number_of_threads(checkpoint: Path, tmp_path: Path) -> None:
    from drupe_ep_cuda.provider import Cuda

    target = replace(Cuda().target(), device=Device("GPU", "gpu", 8 << 30))
    document = packaged(checkpoint, target, tmp_path)
    options = session_options(document)
    assert options["provider_options"] == [{"cuda": {"enable_cuda_graph": "0"}}]
    assert "intra_op_num_threads" not in options
    assert document["search"]["past_present_share_buffer"] is True


def test_the_cache_of_a_package_fits_the_device(checkpoint: Path, cpu: Target, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    large = tmp_path / "large"
    large.mkdir()
    for file in checkpoint.iterdir():
        (large / file.name).write_bytes(file.read_bytes())
    (large / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 131072}))
    model, _ = built(large, cpu, tmp_path)
    weights = weight_bytes(initializers_of(model.payload.component))
    per_token = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, head size, float32
    small = replace(cpu, device=Device("small", "cpu", weights + 4 * 1024 * per_token))
    assert packaged(large, small, tmp_path)["search"]["max_length"] == 1024
    assert packaged(large, cpu, tmp_path)["search"]["max_length"] == 4096


def test_sampling_settings_come_from_the_checkpoints_generation_config(
    kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    folder = kit.make_checkpoint(tmp_path / "checkpoint")
    generation = {"eos_token_id": [1, 7], "do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    document = packaged(folder, cpu, tmp_path)
    assert document["model"]["eos_token_id"] == [1, 7]
    assert {key: document["search"][key] for key in generation if key != "eos_token_id"} == {
        key: value for key, value in generation.items() if key != "eos_token_id"
    }


def test_a_generation_config_that_is_not_json_is_an_error(kit: SimpleNamespace, cpu: Target, tmp_path: Path) -> None:
    folder = kit.make_checkpoint(tmp_path / "checkpoint")
    model, context = built(folder, cpu, tmp_path)
    model.payload.files["generation_config.json"] = b"{"
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        PackageGenai().run(model, PackageGenaiConfig(), context)


def test_the_error_for_a_graph_without_a_description_names_a_cure(
    checkpoint: Path, cpu: Target, tmp_path: Path
) -> None:
    model, context = built(checkpoint, cpu, tmp_path)
    model.payload.component.metadata_props.clear()
    with pytest.raises(ModelError, match="no description of its decoder") as caught:
        PackageGenai().run(model, PackageGenaiConfig(), context)
    assert "build-decoder" in (caught.value.cure or "")


def test_a_model_of_several_parts_is_refused(checkpoint: Path, cpu: Target, tmp_path: Path) -> None:
    model, context = built(checkpoint, cpu, tmp_path)
    model.payload.components["vision"] = model.payload.component
    with pytest.raises(ModelError, match="must have one graph, but has 2"):
        PackageGenai().run(model, PackageGenaiConfig(), context)


def test_a_cache_that_is_concatenated_shares_no_buffer(checkpoint: Path, cpu: Target, tmp_path: Path) -> None:
    model, context = built(checkpoint, cpu, tmp_path)
    for node in model.payload.component.graph:
        if node.op_type == "GroupQueryAttention":
            node.op_type = "MultiHeadAttention"
    files = PackageGenai().run(model, PackageGenaiConfig(), context).payload.files
    assert json.loads(files["genai_config.json"])["search"]["past_present_share_buffer"] is False


def test_a_tied_embedding_is_counted_once(kit: SimpleNamespace, tmp_path: Path, cpu: Target) -> None:
    def drop_head(weights: dict[str, np.ndarray]) -> None:
        del weights["lm_head.weight"]

    def size(folder: Path, tied: bool) -> int:
        kit.make_checkpoint(folder, tie_word_embeddings=tied, edit=drop_head if tied else None)
        model, _ = built(folder, cpu, tmp_path)
        return weight_bytes(initializers_of(model.payload.component))

    assert size(tmp_path / "untied", False) - size(tmp_path / "tied", True) == 512 * 64 * 4
