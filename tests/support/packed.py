"""Quantized checkpoints in the layouts of AutoGPTQ, AutoAWQ and compressed-tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tiny import edit_config

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass
class Module:
    """A quantized matrix: levels [N, K], scales [N, groups], zero points [N, groups], and the group of each column."""

    levels: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray
    group_of: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """float32 [N, K]."""
        difference = self.levels.astype(np.float32) - self.zero_points[:, self.group_of].astype(np.float32)
        return difference * self.scales.astype(np.float32)[:, self.group_of]


def quantized(
    matrix: np.ndarray, bits: int, group_size: int, symmetric: bool, group_of: np.ndarray | None = None
) -> Module:
    """A float matrix, rounded to nearest. group_of: the group of each column; by default groups are in order."""
    n, k = matrix.shape
    group_of = np.arange(k) // group_size if group_of is None else group_of
    order = np.argsort(group_of, kind="stable")
    grouped = matrix[:, order].reshape(n, -1, group_size)
    top, middle = (1 << bits) - 1, 1 << (bits - 1)
    if symmetric:
        scales = (np.abs(grouped).max(-1) / (middle - 1)).astype(np.float16)
        zeros = np.full(scales.shape, middle)
    else:
        low, high = np.minimum(grouped.min(-1), 0), np.maximum(grouped.max(-1), 0)
        scales = ((high - low) / top).astype(np.float16)
        zeros = np.clip(np.round(-low / scales.astype(np.float32)), 0, top)
    levels = np.round(grouped / scales.astype(np.float32)[..., None]) + zeros[..., None]
    levels = np.clip(levels, 0, top).reshape(n, k)[:, np.argsort(order)]
    return Module(levels.astype(np.uint8), scales, zeros.astype(np.uint8), group_of)


def words(levels: np.ndarray, bits: int) -> np.ndarray:
    """Levels as int32 words along the last axis, the first in the lowest bits; the rest of the last word is 0."""
    if 32 % bits:
        return words_across(levels, bits)
    per_word = 32 // bits
    padded = np.zeros((*levels.shape[:-1], -(-levels.shape[-1] // per_word) * per_word), np.int64)
    padded[..., : levels.shape[-1]] = levels
    grouped = padded.reshape(*padded.shape[:-1], -1, per_word)
    return (grouped << (np.arange(per_word) * bits)).sum(-1).astype(np.uint32).view(np.int32)


def words_across(levels: np.ndarray, bits: int) -> np.ndarray:
    """32 levels in `bits` words, as one row of bits: a level may go on in the next word."""
    if bits == 3:
        return words_of_three_bits(levels)
    row = np.unpackbits(levels[..., None].astype(np.uint8), axis=-1, bitorder="little", count=bits)
    return np.packbits(row.reshape(*levels.shape[:-1], -1), axis=-1, bitorder="little").view(np.int32)


def words_in_planes(levels: np.ndarray, bits: int) -> np.ndarray:
    """32 levels in `bits` words: those of the low bits, then those of the others."""
    planes = {3: (2, 1), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1)}.get(bits)
    if planes is None:
        return words(levels, bits)
    blocks, done, found = levels.reshape(*levels.shape[:-1], -1, 32), 0, []
    for width in planes:
        found.append(words(blocks >> done & ((1 << width) - 1), width))
        done += width
    return np.concatenate(found, -1).reshape(*levels.shape[:-1], -1)


def words_of_three_bits(levels: np.ndarray) -> np.ndarray:
    """32 levels in three words: ten, and the low bits of one that goes on in the next word; ten more; one more; ten."""
    blocks = levels.astype(np.uint32).reshape(*levels.shape[:-1], -1, 32)
    packed = np.zeros((*blocks.shape[:-1], 3), np.uint32)
    for word, (first, shift) in enumerate(((0, 0), (11, 1), (22, 2))):
        for place in range(10):
            packed[..., word] |= blocks[..., first + place] << np.uint32(3 * place + shift)
    packed[..., 0] |= (blocks[..., 10] & 3) << np.uint32(30)
    packed[..., 1] |= blocks[..., 10] >> np.uint32(2) | (blocks[..., 21] & 1) << np.uint32(31)
    packed[..., 2] |= blocks[..., 21] >> np.uint32(1)
    return packed.reshape(*levels.shape[:-1], -1).view(np.int32)


def gptq(module: Module, bits: int, less_one: bool = True, planar: bool = False) -> dict[str, np.ndarray]:
    alone, pack = 32 % bits != 0, words_in_planes if planar else words
    stored = (module.zero_points - 1) & ((1 << bits) - 1) if alone and less_one else module.zero_points
    zeros = pack(stored.T, bits)
    if less_one and not alone:  # subtracted from whole words, as in GPTQModel's convert_gptq_v2_to_v1_format
        zeros = (zeros.view(np.uint32) - np.uint32(sum(1 << at for at in range(0, 32, bits)))).view(np.int32)
    return {
        "qweight": np.ascontiguousarray(pack(module.levels, bits).T),
        "qzeros": zeros,
        "scales": np.ascontiguousarray(module.scales.T),
        "g_idx": module.group_of.astype(np.int32),
    }


def awq(module: Module, bits: int = 4) -> dict[str, np.ndarray]:
    def interleaved(levels: np.ndarray) -> np.ndarray:
        return words(levels.reshape(len(levels), -1, 8)[:, :, AWQ_ORDER].reshape(len(levels), -1), bits)

    return {
        "qweight": interleaved(module.levels.T),
        "qzeros": interleaved(module.zero_points.T),
        "scales": np.ascontiguousarray(module.scales.T),
    }


def pack_quantized(module: Module, bits: int, symmetric: bool) -> dict[str, np.ndarray]:
    parts = {
        "weight_packed": words(module.levels, bits),
        "weight_scale": module.scales,
        "weight_shape": np.array(module.levels.shape, np.int64),
    }
    if not symmetric:
        parts["weight_zero_point"] = np.ascontiguousarray(words(module.zero_points.T, bits).T)
    return parts


def quantize_checkpoint(
    source: Path,
    folder: Path,
    method: str,
    *,
    bits: int = 4,
    group_size: int = 32,
    symmetric: bool = False,
    act_order: bool = False,
    edit: Any = None,
) -> dict[str, Module]:
    """Write the checkpoint `source` into `folder` with its linear layers quantized; returns these by name.

    method: gptq, gptq_v2, gptq_p, awq or compressed-tensors. The embedding and the head stay in float16. edit: called
    with the tensors before they are written.
    """
    from safetensors.numpy import load_file

    folder.mkdir()
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    random = np.random.default_rng(3)
    modules: dict[str, Module] = {}
    tensors: dict[str, np.ndarray] = {}
    shared: dict[
        int, np.ndarray
    ] = {}  # query, key and value have the same activations, so act-order gives them the same order
    for name, tensor in load_file(source / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = tensor.astype(np.float16)
            continue
        module, k = name.removesuffix(".weight"), tensor.shape[1]
        size = k if group_size == -1 else group_size
        if act_order and k not in shared:
            shared[k] = random.permutation(k) // size
        modules[module] = quantized(tensor, bits, size, symmetric, shared.get(k))
        parts = {
            "gptq": lambda held: gptq(held, bits),
            "gptq_v2": lambda held: gptq(held, bits, less_one=False),
            "gptq_p": lambda held: gptq(held, bits, less_one=False, planar=True),
            "awq": lambda held: awq(held, bits),
            "compressed-tensors": lambda held: pack_quantized(held, bits, symmetric),
        }[method](modules[module])
        tensors |= {f"{module}.{part}": values for part, values in parts.items()}
    if edit is not None:
        edit(tensors)
    _save(tensors, folder)
    edit_config(folder, quantization_config=_config(method, bits, group_size, symmetric, act_order))
    return modules


def _save(tensors: dict[str, np.ndarray], folder: Path) -> None:
    """Arrays are made contiguous first: safetensors writes their memory in whatever order it has."""
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(contiguous, folder / "model.safetensors", {"format": "pt"})


def _config(method: str, bits: int, group_size: int, symmetric: bool, act_order: bool) -> dict[str, Any]:
    if method == "awq":
        return {"quant_method": "awq", "bits": bits, "group_size": group_size, "version": "gemm", "zero_point": True}
    if method == "compressed-tensors":
        weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "actorder": None}
        weights |= {"strategy": "group", "group_size": group_size} if group_size > 0 else {"strategy": "channel"}
        group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
        return {
            "quant_method": method,
            "format": "pack-quantized",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"],
        }
    return {
        "quant_method": "gptq",
        "checkpoint_format": method,
        "bits": bits,
        "group_size": group_size,
        "sym": symmetric,
        "desc_act": act_order,
    }


def dequantize_checkpoint(
    source: Path, folder: Path, modules: dict[str, Module], others: dict[str, np.ndarray] | None = None
) -> Path:
    """The same model in float32: the values of its quantized layers, then `others`, the rest rounded to float16."""
    from safetensors.numpy import load_file

    folder.mkdir()
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    tensors = {
        name: tensor.astype(np.float16).astype(np.float32)
        for name, tensor in load_file(source / "model.safetensors").items()
    }
    tensors |= {f"{name}.weight": module.values for name, module in modules.items()} | (others or {})
    _save(tensors, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    return folder
