"""Checkpoints in FP8 and int8 with scales give the packages of the same numbers in floating point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import decoder_families
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import edit_config, make_checkpoint

import drupe
from drupe.api import ModelError

SINGLE = "model.safetensors"
SETTINGS = {"hidden_size": 64, "intermediate_size": 96, "tie_word_embeddings": False}
BLOCK = (48, 32)
FP8 = torch.float8_e4m3fn
COMPRESSED: dict[str, Any] = {"quant_method": "compressed-tensors", "format": "float-quantized"}


def weights_of(folder: Path, out: Path) -> bytes:
    drupe.optimize(folder, out, precision="int4", quality="fast", verify=False)
    return (out / "model.onnx.data").read_bytes()


def scaled(values: torch.Tensor, block: tuple[int, int], kind: torch.dtype = FP8) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of 8 bits and the scales of their blocks, [..., ceil(N / rows), ceil(K / columns)]."""
    n, k = values.shape[-2:]
    rows, columns = min(block[0], n), min(block[1], k)
    most = 448.0 if kind == FP8 else 127.0
    scales = torch.empty(*values.shape[:-2], -(-n // rows), -(-k // columns))
    for i in range(scales.shape[-2]):
        for j in range(scales.shape[-1]):
            part = values[..., i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
            scales[..., i, j] = part.abs().amax((-2, -1)) / most
    wide = scales.repeat_interleave(rows, -2)[..., :n, :].repeat_interleave(columns, -1)[..., :k]
    divided = values / wide
    return (divided.round() if kind == torch.int8 else divided).to(kind), scales


def dequantized(values: torch.Tensor, scales: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    n, k = values.shape[-2:]
    wide = scales.repeat_interleave(min(block[0], n), -2)[..., :n, :].repeat_interleave(min(block[1], k), -1)[..., :k]
    return values.float() * wide


def split(
    folder: Path, said: dict[str, Any], block: tuple[int, int], end: str, kind: torch.dtype = FP8, shape: Any = None
) -> tuple[Path, Path]:
    """The checkpoint in 8 bits as it says it is, and the same numbers in float32."""
    tensors = load_file(folder / SINGLE)
    plain, small = dict(tensors), dict(tensors)
    for name, tensor in tensors.items():
        matrix = name.endswith("_proj.weight") or name.endswith(("experts.gate_up_proj", "experts.down_proj"))
        if matrix and tensor.ndim > 1:
            small[name], scales = scaled(tensor.float(), block, kind)
            plain[name] = dequantized(small[name], scales, block)
            small[name + end] = scales if shape is None else scales.reshape(shape)
            if name.endswith(".weight"):
                small[name.removesuffix("weight") + "input_scale"] = torch.ones(())
    other = folder.with_name("plain")
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    save_file({name: each.contiguous() for name, each in plain.items()}, other / SINGLE)
    save_file({name: each.contiguous() for name, each in small.items()}, folder / SINGLE)
    edit_config(folder, quantization_config=said)
    return folder, other


def group(**weights: Any) -> dict[str, Any]:
    return {**COMPRESSED, "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, **weights}}}}


@pytest.mark.parametrize(
    ("said", "block", "end", "kind", "shape"),
    [
        ({"quant_method": "fp8", "weight_block_size": BLOCK}, BLOCK, "_scale_inv", FP8, None),
        ({"quant_method": "fp8", "weight_block_size": None}, (999, 999), "_scale_inv", FP8, ()),
        (group(type="float", strategy="channel"), (1, 999), "_scale", FP8, None),
        (group(type="float", strategy="tensor"), (999, 999), "_scale", FP8, (1,)),
        (group(type="float", strategy="block", block_structure=BLOCK), BLOCK, "_scale", FP8, None),
        ({**group(type="int", strategy="channel"), "format": "int-quantized"}, (1, 999), "_scale", torch.int8, None),
    ],
)
def test_scaled_values_are_read_whatever_shares_a_scale(
    said: Any, block: tuple[int, int], end: str, kind: torch.dtype, shape: Any, tmp_path: Path
) -> None:
    small, plain = split(make_checkpoint(tmp_path / "in", "qwen3", **SETTINGS), said, block, end, kind, shape)
    assert weights_of(small, tmp_path / "small-out") == weights_of(plain, tmp_path / "plain-out")


@pytest.mark.parametrize("merged", [False, True])
def test_experts_in_fp8_are_read_apart_and_merged(merged: bool, tmp_path: Path) -> None:
    folder, _ = decoder_families.make("qwen3_moe, normalised", tmp_path / "in")
    if merged:
        merge(folder)
    said = {"quant_method": "fp8", "weight_block_size": BLOCK}
    small, plain = split(folder, said, BLOCK, "_scale_inv")
    assert weights_of(small, tmp_path / "small-out") == weights_of(plain, tmp_path / "plain-out")


def merge(folder: Path) -> None:
    """One tensor for all experts' gate and up, and one for down."""
    tensors = load_file(folder / SINGLE)
    apart = {name for name in tensors if ".experts." in name}
    found = {name: each for name, each in tensors.items() if name not in apart}
    for prefix in sorted({name.partition(".experts.")[0] for name in apart}):
        count = len({name for name in apart if name.startswith(prefix) and "down" in name})
        each = [[tensors[f"{prefix}.experts.{number}.{part}_proj.weight"] for part in ("gate", "up", "down")]
                for number in range(count)]  # fmt: skip
        found[f"{prefix}.experts.gate_up_proj"] = torch.stack([torch.cat(one[:2]) for one in each])
        found[f"{prefix}.experts.down_proj"] = torch.stack([one[2] for one in each])
    save_file(found, folder / SINGLE)


def test_a_package_of_an_fp8_checkpoint_is_checked(tmp_path: Path) -> None:
    said = {"quant_method": "fp8", "weight_block_size": list(BLOCK)}
    small, _ = split(make_checkpoint(tmp_path / "in", "llama", **SETTINGS), said, BLOCK, "_scale_inv")
    outcome = drupe.optimize(small, tmp_path / "out", precision="int4", quality="fast")
    assert outcome.check.not_run is None and outcome.check.not_compared is None


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"quant_method": "fp8", "weight_block_size": [16, 16]}, "does not fit scales"),
        ({"quant_method": "fp8", "weight_block_size": [48]}, "two whole numbers"),
        (group(type="float", strategy="token"), "strategy 'token'"),
        (group(type="float", strategy="channel", symmetric=False), "symmetric weights"),
    ],
)
def test_scales_that_do_not_fit_are_refused(said: dict[str, Any], message: str, tmp_path: Path) -> None:
    small, _ = split(make_checkpoint(tmp_path / "in", "llama", **SETTINGS), said, BLOCK, "_scale_inv")
    with pytest.raises(ModelError, match=message):
        drupe.optimize(small, tmp_path / "out", verify=False)
    assert not (tmp_path / "out").exists()
