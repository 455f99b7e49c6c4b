"""Quantized checkpoints become packages with the same levels, scales and zero points."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from packed import Module, dequantize_checkpoint, quantize_checkpoint
from plain_decoders import decoder_feed, exactly_computing
from tiny import edit_config, make_checkpoint

import drupe
from drupe.api import ModelError, UsageError
from drupe_blockquant import Scheme
from drupe_blockquant.layout import Quantized, dequantize_rows, unpack_levels, unpack_zero_points

PROMPT = [3, 77, 130, 9, 9, 250, 41]
SETTINGS = {"hidden_size": 128, "intermediate_size": 192, "tie_word_embeddings": False}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: make_checkpoint(folder / name, name, **SETTINGS) for name in ("llama", "qwen2", "qwen3")}


def products(graph: ir.Graph) -> dict[str, ir.Node]:
    """The products of the blocks, by the names of their checkpoint's matrices, in the order of the graph."""
    return {node.name: node for node in graph if node.op_type == "MatMulNBits" and "layers" in (node.name or "")}


def held(value: ir.Value) -> np.ndarray:
    """The values of an input. Scales may be computed from constants, as a cast or a product of casts."""
    node = value.producer()
    if node is None:
        return value.const_value.numpy()
    made = [held(each) for each in node.inputs]
    return made[0].astype(np.float32) if node.op_type == "Cast" else made[0] * made[1]


def parts_of(name: str, modules: dict[str, Module]) -> list[Module]:
    """The checkpoint's matrices from which a product was made."""
    layer = name.partition("/")[0].rpartition(".")[0]
    own = name.partition("/")[0].rpartition(".")[2]
    members = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}.get(own, (own,))
    return [modules[f"{layer}.{member}"] for member in members]


def logits(package: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(package / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(["logits"], decoder_feed(session, PROMPT))[0][0, -1]


def expected_logits(folder: Path) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).logits[0, -1].numpy()


def weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("model*") if path.suffix in (".data", ".safetensors"))


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gptq": ("llama", "gptq", {}),
    "gptq symmetric": ("qwen2", "gptq", {"symmetric": True, "group_size": 64}),
    "gptq 8 bits": ("llama", "gptq", {"bits": 8}),
    "gptq rows": ("qwen3", "gptq", {"group_size": -1}),
    "gptq act-order": ("qwen2", "gptq", {"act_order": True}),
    "gptq_v2": ("llama", "gptq_v2", {"symmetric": True}),
    "awq": ("qwen2", "awq", {"group_size": 64}),
    "compressed-tensors": ("qwen3", "compressed-tensors", {}),
    "compressed-tensors symmetric": ("llama", "compressed-tensors", {"symmetric": True}),
    "compressed-tensors channel": ("llama", "compressed-tensors", {"symmetric": True, "group_size": -1}),
}

ODD_WIDTHS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gptq 3 bits": ("llama", "gptq", {"bits": 3}),
    "gptq 3 bits symmetric act-order": ("qwen2", "gptq", {"bits": 3, "symmetric": True, "act_order": True}),
    "gptq_v2 3 bits": ("qwen3", "gptq_v2", {"bits": 3, "group_size": 64}),
    "gptq_p 3 bits": ("llama", "gptq_p", {"bits": 3}),
    "gptq_p 5 bits": ("llama", "gptq_p", {"bits": 5}),
    "gptq_p 6 bits act-order": ("qwen2", "gptq_p", {"bits": 6, "act_order": True}),
    "gptq_p 7 bits symmetric": ("qwen3", "gptq_p", {"bits": 7, "symmetric": True}),
}
"""Levels that are stored in 4 or 8 bits, in the middle."""


@pytest.mark.parametrize("name", CASES)
def test_levels_scales_and_zero_points_equal_those_of_the_checkpoint(
    checkpoints: dict[str, Path], tmp_path: Path, name: str
) -> None:
    architecture, method, settings = CASES[name]
    source, folder = checkpoints[architecture], tmp_path / "in"
    modules = quantize_checkpoint(source, folder, method, **settings)
    drupe.optimize(folder, tmp_path / "out")
    assert weight_bytes(tmp_path / "out") <= 1.1 * weight_bytes(folder)
    seen = 0
    model = ir.load(tmp_path / "out" / "model.onnx")
    assert "drupe.quantized_again" not in model.metadata_props
    for product, node in products(model.graph).items():
        parts = parts_of(product, modules)
        bits, k = node.attributes["bits"].as_int(), node.attributes["K"].as_int()
        columns = np.argsort(parts[0].group_of, kind="stable")
        packed = held(node.inputs[1])
        levels = unpack_levels(packed, bits).reshape(len(packed), -1)[:, :k]
        np.testing.assert_array_equal(levels, np.concatenate([part.levels[:, columns] for part in parts]))
        blocks = np.arange(packed.shape[1]) * node.attributes["block_size"].as_int()
        groups = parts[0].group_of[columns][blocks]
        scales = np.concatenate([part.scales[:, groups] for part in parts])
        np.testing.assert_array_equal(held(node.inputs[2]), scales)
        zeros = np.concatenate([part.zero_points[:, groups] for part in parts])
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            np.testing.assert_array_equal(unpack_zero_points(held(node.inputs[3]), bits, len(blocks)), zeros)
        else:
            assert (zeros == 1 << (bits - 1)).all()
        seen += len(parts)
    assert seen == len(modules) == 14


@pytest.mark.parametrize("name", CASES | ODD_WIDTHS)
def test_inspect_counts_weights_and_not_packed_words(checkpoints: dict[str, Path], tmp_path: Path, name: str) -> None:
    from drupe.api import Model
    from drupe_checkpoints.kind import HfKind

    architecture, method, settings = (CASES | ODD_WIDTHS)[name]
    quantize_checkpoint(checkpoints[architecture], tmp_path / "in", method, **settings)
    described, source = (HfKind().describe(Model("hf", each)) for each in (tmp_path / "in", checkpoints[architecture]))
    assert described["parameters"] == source["parameters"]
    assert described["element types"] == [f"int{settings.get('bits', 4)}", "float16"]
    assert f"{settings.get('bits', 4)} bits, " in described["quantized"]


def test_calibration_does_not_change_quantized_matrices(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """`--quality best` decides only on the embedding and the head."""
    folder = tmp_path / "in"
    quantize_checkpoint(checkpoints["llama"], folder, "gptq")
    drupe.optimize(folder, tmp_path / "balanced", verify=False)
    few = {"calibration_sequences": 2, "calibration_length": 64}
    drupe.optimize(folder, tmp_path / "best", quality="best", verify=False, **few)
    plain, best = (products(ir.load(tmp_path / name / "model.onnx").graph) for name in ("balanced", "best"))
    assert plain.keys() == best.keys()
    for name, node in plain.items():
        for index in (1, 2, 3):
            np.testing.assert_array_equal(held(best[name].inputs[index]), held(node.inputs[index]))


def test_bytes_saved_by_the_checkpoint_are_used_for_embedding_and_head(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """The quantized matrices do not change, so the rest of the default budget is for embedding and head."""
    folder = tmp_path / "in"
    quantize_checkpoint(checkpoints["llama"], folder, "gptq", group_size=64)
    drupe.optimize(folder, tmp_path / "out", verify=False)
    graph = ir.load(tmp_path / "out" / "model.onnx").graph
    ends = [node for node in graph if node.metadata_props.get("drupe.role") in ("embedding", "head")]
    assert {node.attributes["bits"].as_int() for node in ends if "bits" in node.attributes} == {8}


def ends(graph: ir.Graph) -> dict[str, np.ndarray]:
    """The values of embedding and head, which Drupe has quantized."""
    found = {}
    for node in graph:
        looks_up = node.op_type == "GatherBlockQuantized"
        if looks_up or (node.op_type == "MatMulNBits" and (node.name or "").startswith("lm_head")):
            bits, size = (node.attributes[name].as_int() for name in ("bits", "block_size"))
            weight, scales, zeros = (held(node.inputs[at]) for at in ((0, 2, 3) if looks_up else (1, 2, 3)))
            scheme = Scheme(bits, size, symmetric=False)
            values = dequantize_rows(Quantized(weight, scales, zeros), scheme, SETTINGS["hidden_size"])
            found["model.embed_tokens.weight" if looks_up else "lm_head.weight"] = values
    return found


@pytest.mark.parametrize("name", CASES | ODD_WIDTHS)
def test_a_package_has_the_logits_of_the_dequantized_model(
    checkpoints: dict[str, Path], tmp_path: Path, name: str
) -> None:
    architecture, method, settings = (CASES | ODD_WIDTHS)[name]
    source, folder = checkpoints[architecture], tmp_path / "in"
    modules = quantize_checkpoint(source, folder, method, **settings)
    drupe.optimize(folder, tmp_path / "out", verify=False)
    others = ends(ir.load(tmp_path / "out" / "model.onnx").graph)
    assert len(others) == 2
    expected = expected_logits(dequantize_checkpoint(source, tmp_path / "float", modules, others))
    np.testing.assert_allclose(logits(exactly_computing(tmp_path / "out")), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["gptq", "awq", "compressed-tensors", "gptq act-order"])
def test_a_float_package_has_the_dequantized_values(checkpoints: dict[str, Path], tmp_path: Path, name: str) -> None:
    architecture, method, settings = CASES[name]
    source, folder = checkpoints[architecture], tmp_path / "in"
    modules = quantize_checkpoint(source, folder, method, **settings)
    expected = expected_logits(dequantize_checkpoint(source, tmp_path / "float", modules))
    drupe.optimize(folder, tmp_path / "out", precision="fp32", verify=False)
    np.testing.assert_allclose(logits(tmp_path / "out"), expected, atol=1e-4)


def test_groups_that_are_not_block_sizes_are_quantized_again_and_listed(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    quantize_checkpoint(checkpoints["llama"], tmp_path / "in", "compressed-tensors", group_size=8)
    drupe.optimize(tmp_path / "in", tmp_path / "out", verify=False)
    again = json.loads(ir.load(tmp_path / "out" / "model.onnx").metadata_props["drupe.quantized_again"])
    assert len(again) == 2 * 5 and "model.layers.0.mlp.down_proj.weight" in again


def test_a_block_size_that_differs_from_the_checkpoints_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    quantize_checkpoint(checkpoints["llama"], tmp_path / "in", "gptq")
    with pytest.raises(UsageError, match="already quantized, in blocks of 32"):
        drupe.optimize(tmp_path / "in", tmp_path / "out", block_size=64, verify=False)
    drupe.optimize(tmp_path / "in", tmp_path / "out", block_size=16, verify=False)  # two blocks with equal scales


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "weights that bitsandbytes packed"),
        ({"quant_method": "quanto"}, "quant_method 'quanto'"),
        ({"quant_method": "exl2", "bits": 4.5}, "quant_method 'exl2'"),
        ({"quant_method": "gptq", "bits": 5, "group_size": 128}, "weights of 5 bits"),
        ({"quant_method": "awq", "bits": 5, "group_size": 128}, "5 bits"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "marlin"}, "format 'marlin'"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "group_size = 0"),
        ({"quant_method": "gptq", "bits": 4}, "lacks the key 'group_size'"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64, "dynamic": {"a": {"lora": 8}}}, "lora.*'dynamic'"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64, "pack_dtype": "int16"}, "words of int16"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64, "adapter": {"rank": 8}}, "EoRA"),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 64, "packing_format": "auto_round:fp8"}, "'fp8'"),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 64, "act_bits": 8}, "quantized activations"),
        ({"group_size": 64, "bits": 4, "mode": "mxfp4", "quant_method": "mlx"}, "MLX's quantization 'mxfp4'"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv"}, "layout 'gemv'"),
        ({"quant_method": "compressed-tensors"}, "no config_groups"),
        ({"quant_method": "compressed-tensors", "format": "marlin-24", "config_groups": {"a": {}}}, "'marlin-24'"),
        ({"bits": 4}, "does not name the method"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64, "is_marlin_format": True}, "is_marlin_format"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64, "dynamic": {"+:a": {"bits": "x"}}}, r"dynamic.\+:a of"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"a": None}},
         "'num_bits' in quantization_config.config_groups.a.weights"),
        ({"quant_method": "mlx", "bits": 4, "group_size": {}}, "group_size = "),
    ],
)  # fmt: skip
def test_the_error_for_an_unsupported_checkpoint_names_the_reason(
    checkpoints: dict[str, Path], tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    quantize_checkpoint(checkpoints["llama"], tmp_path / "in", "gptq")
    edit_config(tmp_path / "in", quantization_config=config)
    with pytest.raises(ModelError, match=message):
        drupe.optimize(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_floats_of_an_unknown_method_are_refused_with_a_cure_that_works(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(checkpoints["llama"], tmp_path / "in")
    edit_config(tmp_path / "in", quantization_config={"quant_method": "foo"})
    with pytest.raises(ModelError, match="its weights are in floating point") as caught:
        drupe.optimize(tmp_path / "in", tmp_path / "out")
    assert "remove quantization_config from config.json if" in str(caught.value.cure)


def test_tensors_of_a_wrong_shape_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def lie(tensors: dict[str, np.ndarray]) -> None:
        for part in ("qweight", "qzeros", "scales", "g_idx"):  # a smaller matrix whose tensors fit each other
            name = f"model.layers.0.mlp.up_proj.{part}"
            tensors[name] = tensors[name][: len(tensors[name]) // 2].copy()

    quantize_checkpoint(checkpoints["llama"], tmp_path / "in", "gptq", edit=lie)
    with pytest.raises(ModelError, match=r"up_proj.weight has the shape \[192, 64\]"):
        drupe.optimize(tmp_path / "in", tmp_path / "out")


def test_zero_biases_added_by_quantizers_are_left_out(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def add(value: float) -> Any:
        def edit(tensors: dict[str, np.ndarray]) -> None:
            tensors["model.layers.0.mlp.up_proj.bias"] = np.full(192, value, np.float16)

        return edit

    quantize_checkpoint(checkpoints["llama"], tmp_path / "in", "gptq", edit=add(0.0))
    drupe.optimize(tmp_path / "in", tmp_path / "out", verify=False)
    quantize_checkpoint(checkpoints["llama"], tmp_path / "other", "gptq", edit=add(0.5))
    with pytest.raises(ModelError, match=r"up_proj\.bias"):
        drupe.optimize(tmp_path / "other", tmp_path / "out2", verify=False)
