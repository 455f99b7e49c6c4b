"""Dialects: the same weights, said in the ways in which programs say how they are quantized, or that they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packed import dequantize_checkpoint, quantize_checkpoint
from safetensors.numpy import load_file, save_file
from tiny import edit_config, make_checkpoint

import drupe
from drupe.api import ModelError

SETTINGS = {"hidden_size": 128, "intermediate_size": 192, "tie_word_embeddings": False}
GPTQ = {"bits": 4, "group_size": 32, "desc_act": False, "sym": False}
SINGLE = "model.safetensors"
Config = dict[str, Any]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("source") / "source", "llama", **SETTINGS)


def package(folder: Path, precision: str = "int4") -> tuple[bytes, bytes]:
    """The graph and the weights that the checkpoint becomes."""
    out = folder.with_name(f"{folder.name}-out")
    drupe.optimize(folder, out, precision=precision, quality="fast" if precision == "int4" else None, verify=False)
    return (out / "model.onnx").read_bytes(), (out / "model.onnx.data").read_bytes()


@pytest.mark.parametrize(
    ("said", "file"),
    [
        ({**GPTQ, "quant_method": "gptq", "dynamic": {"-:lm_head": {}, r"-:.*\.norm.*": {}}}, None),
        ({**GPTQ, "quant_method": "gptq", "dynamic": {r"+:.*\.mlp\..*": {"bits": 4, "damp_percent": 0.1}}}, None),
        (GPTQ, None),
        ({**GPTQ, "model_file_base_name": "model"}, "quantize_config.json"),
        ({**GPTQ, "quant_method": "auto-round", "packing_format": "auto_round:auto_gptq", "data_type": "int",
          "extra_config": {"lm_head": {"bits": 16}}}, None),
        ({"bits": 4, "group_size": 32, "sym": False, "quant_method": "intel/auto-round"}, None),
    ],
)  # fmt: skip
def test_gptq_is_read_however_it_is_said(source: Path, tmp_path: Path, said: Config, file: str | None) -> None:
    quantize_checkpoint(source, tmp_path / "plain", "gptq")
    quantize_checkpoint(source, tmp_path / "said", "gptq")
    edit_config(tmp_path / "said", quantization_config=None if file else said)
    if file:
        (tmp_path / "said" / file).write_text(json.dumps(said))
    assert package(tmp_path / "said") == package(tmp_path / "plain")


@pytest.mark.parametrize(
    ("form", "packed", "bits"),
    [
        ("auto_round:auto_gptq", "gptq", 3), ("auto_round:gptq", "gptq", 5), ("auto", "gptq", 6),
        ("auto_round", "gptq_v2", 3), ("auto_round:gptqmodel", "gptq_v2", 7), ("auto_round", "gptq_v2", 4),
        ("auto_round:auto_awq", "awq", 5), ("auto_round:awq", "awq", 7),
    ],
)  # fmt: skip
def test_auto_round_packs_all_widths(source: Path, tmp_path: Path, form: str, packed: str, bits: int) -> None:
    modules = quantize_checkpoint(source, tmp_path / "in", packed, bits=bits)
    said = {"quant_method": "auto-round", "bits": bits, "group_size": 32, "sym": False, "packing_format": form}
    edit_config(tmp_path / "in", quantization_config=said)
    dequantize_checkpoint(source, tmp_path / "float", modules)
    assert package(tmp_path / "in", "fp32") == package(tmp_path / "float", "fp32")


@pytest.mark.parametrize(
    ("said", "file"),
    [
        ({"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}, "quant_config.json"),
        ({"bits": 4, "group_size": 32, "sym": False, "quant_method": "auto-round",
          "packing_format": "auto_round:auto_awq"}, None),
    ],
)  # fmt: skip
def test_awq_is_read_however_it_is_said(source: Path, tmp_path: Path, said: Config, file: str | None) -> None:
    quantize_checkpoint(source, tmp_path / "plain", "awq")
    quantize_checkpoint(source, tmp_path / "said", "awq")
    edit_config(tmp_path / "said", quantization_config=None if file else said)
    if file:
        (tmp_path / "said" / file).write_text(json.dumps(said))
    assert package(tmp_path / "said") == package(tmp_path / "plain")


@pytest.mark.parametrize(
    "said",
    [
        {"quant_method": "gptq", "dynamic": {r"-:.*down_proj": {}, r".*\.mlp\..*": {"bits": 8, "group_size": 64}}},
        {"quant_method": "auto-round", "extra_config": {
            r".*(gate|up)_proj": {"bits": 8, "group_size": 64}, "model.layers.0.mlp.down_proj": {"bits": 16},
            "model.layers.1.mlp.down_proj": {"bits": 16, "data_type": "float"}}},
    ],
)  # fmt: skip
def test_modules_may_have_schemes_of_their_own(source: Path, tmp_path: Path, said: Config) -> None:
    four = quantize_checkpoint(source, tmp_path / "in", "gptq")
    eight = quantize_checkpoint(source, tmp_path / "eight", "gptq", bits=8, group_size=64)
    tensors, others, floats = (load_file(path / SINGLE) for path in (tmp_path / "in", tmp_path / "eight", source))
    modules = {}
    for name in four:
        if "down_proj" in name:
            tensors = {key: value for key, value in tensors.items() if not key.startswith(name)}
            tensors[f"{name}.weight"] = floats[f"{name}.weight"]
        elif ".mlp." in name:
            tensors |= {key: value for key, value in others.items() if key.startswith(name)}
            modules[name] = eight[name]
        else:
            modules[name] = four[name]
    save_file(tensors, tmp_path / "in" / SINGLE, {"format": "pt"})
    edit_config(tmp_path / "in", quantization_config={**GPTQ, **said})
    plain = dequantize_checkpoint(source, tmp_path / "plain", modules)
    for name in [name for name in floats if "down_proj" not in name and not name.endswith("_proj.weight")]:
        floats.pop(name)
    held = load_file(plain / SINGLE)
    held |= {name: value for name, value in floats.items() if "down_proj" in name}
    save_file(held, plain / SINGLE, {"format": "pt"})
    assert package(tmp_path / "in", "fp32")[1] == package(plain, "fp32")[1]


def mlx(matrix: np.ndarray, bits: int, group_size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A matrix as MLX packs it, and its values."""
    grouped = matrix.reshape(len(matrix), -1, group_size)
    biases = grouped.min(-1).astype(np.float16)
    scales = ((grouped.max(-1) - grouped.min(-1)) / (2**bits - 1)).astype(np.float16)
    wide = [each.astype(np.float32)[..., None] for each in (scales, biases)]
    levels = np.clip(np.round((grouped - wide[1]) / wide[0]), 0, 2**bits - 1)
    values = (levels * wide[0] + wide[1]).reshape(matrix.shape).astype(np.float32)
    stream = levels.astype(np.uint8).reshape(len(matrix), -1, 1) >> np.arange(bits, dtype=np.uint8) & 1
    words = np.packbits(stream.reshape(len(matrix), -1), axis=-1, bitorder="little").view(np.uint32)
    return {"weight": words, "scales": scales, "biases": biases}, values


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_mlx_is_read_with_its_embedding_and_its_schemes_by_module(source: Path, tmp_path: Path, bits: int) -> None:
    packed, plain = {}, {}
    for name, tensor in load_file(source / SINGLE).items():
        packed[name] = plain[name] = tensor
        if tensor.ndim == 2 and "lm_head" not in name:
            module = name.removesuffix(".weight")
            parts, plain[name] = mlx(tensor.astype(np.float32), *((8, 64) if "down_proj" in name else (bits, 32)))
            packed |= {f"{module}.{part}": values for part, values in parts.items()}
    own = {f"model.layers.{layer}.mlp.down_proj": {"bits": 8, "group_size": 64} for layer in range(2)}
    said = {"bits": bits, "group_size": 32, "mode": "affine", "lm_head": False, **own}
    sections = {"quantization": said, "quantization_config": said}
    for name, tensors, settings in (("in", packed, sections), ("plain", plain, {})):
        folder = make_checkpoint(tmp_path / name, "llama", **SETTINGS)
        save_file(tensors, folder / SINGLE, {"format": "pt"})
        edit_config(folder, **settings)
    assert package(tmp_path / "in", "fp32")[1] == package(tmp_path / "plain", "fp32")[1]
    if bits in (3, 4, 6):
        drupe.optimize(tmp_path / "in", tmp_path / "levels", precision="int8", max_kl=0.01)  # only the head gets 8 bits


def test_levels_of_mlx_lie_where_its_kernels_read_them() -> None:
    """The shifts are those of `extract_bits` in MLX's mlx/backend/cpu/quantized.cpp."""
    from drupe_packed.int32_words import across_bytes

    bytes_ = np.random.default_rng(5).integers(0, 256, (3, 60), np.uint8)
    w = bytes_.reshape(3, -1, 3).astype(int)
    six = [w[..., 0] & 63, (w[..., 0] >> 6) + ((w[..., 1] & 15) << 2), (w[..., 1] >> 4) + ((w[..., 2] & 3) << 4)]
    np.testing.assert_array_equal(across_bytes(bytes_, 6), np.stack([*six, w[..., 2] >> 2], -1).reshape(3, -1))
    three = [w[..., 0] & 7, w[..., 0] >> 3 & 7, (w[..., 0] >> 6) + ((w[..., 1] & 1) << 2), w[..., 1] >> 1 & 7]
    three += [w[..., 1] >> 4 & 7, (w[..., 1] >> 7) + ((w[..., 2] & 3) << 1), w[..., 2] >> 2 & 7, w[..., 2] >> 5]
    np.testing.assert_array_equal(across_bytes(bytes_, 3), np.stack(three, -1).reshape(3, -1))
    w = bytes_.reshape(3, -1, 5).astype(int)
    five = [w[..., 0] & 31, (w[..., 0] >> 5) + ((w[..., 1] & 3) << 3), w[..., 1] >> 2 & 31]
    five += [(w[..., 1] >> 7) + ((w[..., 2] & 15) << 1), (w[..., 2] >> 4) + ((w[..., 3] & 1) << 4), w[..., 3] >> 1 & 31]
    five += [(w[..., 3] >> 6) + ((w[..., 4] & 7) << 2), w[..., 4] >> 3]
    np.testing.assert_array_equal(across_bytes(bytes_, 5), np.stack(five, -1).reshape(3, -1))


@pytest.mark.parametrize(
    "said",
    [
        {"load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4"},
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {"quant_method": "gptq", **GPTQ},
    ],
)
def test_a_quantization_that_the_weights_do_not_have_is_left_over_and_said(
    source: Path, tmp_path: Path, said: Config
) -> None:
    plain, left = (make_checkpoint(tmp_path / name, "llama", **SETTINGS) for name in ("plain", "left"))
    edit_config(left, quantization_config=said)
    assert package(left) == package(plain)
    record = json.loads((tmp_path / "left-out" / "drupe.json").read_text("utf-8"))
    assert "floating point" in json.dumps(record["notices"])


@pytest.mark.parametrize(
    ("tensor", "said", "named"),
    [
        ("q_proj.SCB", {"load_in_8bit": True}, "bitsandbytes packed"),
        ("q_proj.weight.absmax", None, "quantized by bitsandbytes"),
        ("q_proj.weight_scale_inv", None, "FP8 with a scale for each block .* no file says how"),
        ("q_proj.W_q", None, "HQQ"),
        ("q_proj._weight_qdata", {"quant_method": "torchao"}, "'torchao'"),
        ("q_proj.weight_scale_2", {"quant_method": "modelopt"}, "'modelopt'"),
        ("q_proj.qweight", None, "GPTQ or AWQ .* no file says how"),
        ("q_proj.biases", None, "MLX .* no file says how"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_own_name(
    tmp_path: Path, tensor: str, said: Config | None, named: str
) -> None:
    folder = make_checkpoint(tmp_path / "in", "llama", **SETTINGS)
    tensors = load_file(folder / SINGLE)
    tensors[f"model.layers.0.self_attn.{tensor}"] = np.zeros(4, np.float32)
    save_file(tensors, folder / SINGLE, {"format": "pt"})
    edit_config(folder, quantization_config=said)
    with pytest.raises(ModelError, match=named):
        drupe.optimize(folder, tmp_path / "out")
