"""Writing a checkpoint with its rounded matrices packed in the layout "gptq_v2"; the rest is copied unchanged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import Context, ModelError
from drupe_checkpoints import Checkpoint
from drupe_checkpoints.kind import PARTS
from drupe_files import disk_errors
from drupe_onnx.safetensors import INDEX, SINGLE, tensors_of_folder
from drupe_quant_autoround.tuning import Levels

if TYPE_CHECKING:
    from drupe_quant_autoround.configuration import RoundByGradientConfig

CONFIG = "config.json"
WEIGHTS = ".safetensors"
WORD = 32
"""Bits of a word."""


def write_checkpoint(
    folder: Path, source: Checkpoint, layers: Mapping[str, Levels], config: RoundByGradientConfig, context: Context
) -> None:
    """Write the checkpoint, with the same files as the source. Raises ModelError, OutputError."""
    with disk_errors(folder):
        folder.mkdir(parents=True)
        _copy_beside(source.folder, folder)
        written = json.loads((source.folder / CONFIG).read_text("utf-8"))
        written["quantization_config"] = quantization_config(config)
        (folder / CONFIG).write_text(json.dumps(written, indent=2), "utf-8")
        _write_tensors(folder, source.folder, layers, config, context)


def split_stored(layers: Mapping[str, Levels], folder: Path) -> tuple[dict[str, Levels], list[str]]:
    """The layers that the checkpoint has a matrix for, and the names of the others.

    auto-round takes merged experts apart. Raises ModelError where no matrix is left.
    """
    tensors = tensors_of_folder(folder)
    stored = {name: each for name, each in layers.items() if f"{name}.weight" in tensors}
    if not stored:
        raise ModelError(
            "auto-round has rounded no matrix that the checkpoint holds under the same name",
            where=folder,
            cure="--quality best calibrates without auto-round",
        )
    return stored, [name for name in layers if name not in stored]


def quantization_config(config: RoundByGradientConfig) -> dict[str, Any]:
    """The quantization_config for transformers and drupe. Zero points are stored unchanged, hence "gptq_v2"."""
    return {
        "quant_method": "gptq",
        "checkpoint_format": "gptq_v2",
        "bits": config.bits,
        "group_size": config.block_size,
        "sym": config.symmetric,
        "desc_act": False,
        "lm_head": False,
        "meta": {"quantizer": config.computed_with},
    }


def packed(layer: Levels, bits: int, block_size: int) -> dict[str, NDArray[Any]]:
    """The tensors of a module: see `drupe_packed.layouts.GptqMatrix`."""
    k = layer.levels.shape[1]
    return {
        "qweight": words(layer.levels.T, bits),
        "qzeros": np.ascontiguousarray(words(layer.zero_points, bits).T),
        "scales": np.ascontiguousarray(layer.scales.T),
        "g_idx": np.arange(k, dtype=np.int32) // block_size,
    }


def words(levels: NDArray[np.uint8], bits: int) -> NDArray[np.int32]:
    """Levels [rows, columns] as int32 [ceil(rows * bits / 32), columns]: words of consecutive rows, low bits first."""
    per_word = WORD // bits
    rows, columns = levels.shape
    whole = np.zeros((-(-rows // per_word) * per_word, columns), np.uint32)
    whole[:rows] = levels
    shifts = np.arange(0, WORD, bits, dtype=np.uint32)[None, :, None]
    joined: NDArray[np.uint32] = np.bitwise_or.reduce(whole.reshape(-1, per_word, columns) << shifts, axis=1)
    return joined.view(np.int32)


def _copy_beside(source: Path, folder: Path) -> None:
    """Copy everything but the weights: tokenizer, templates, licences."""
    for path in (path for pattern in PARTS for path in source.glob(pattern)):
        target = folder / path.relative_to(source)
        if path.is_file() and path.suffix != WEIGHTS and path.name != INDEX and not path.name.startswith("."):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _write_tensors(
    folder: Path, source: Path, layers: Mapping[str, Levels], config: RoundByGradientConfig, context: Context
) -> None:
    """Write each file, with the rounded matrices packed and the other tensors unchanged."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = tensors_of_folder(source)
    files = list(dict.fromkeys(tensor.path for tensor in tensors.values()))
    where: dict[str, str] = {}
    with context.progress.task("writing the rounded checkpoint", len(files), "file") as progress:
        for at, path in enumerate(files, 1):
            context.stop_if_cancelled()
            name = SINGLE if len(files) == 1 else f"model-{at:05}-of-{len(files):05}.safetensors"
            with safe_open(path, "pt") as opened:
                parts = _parts(opened, layers, config)
            save_file(parts, folder / name, {"format": "pt"})
            where.update(dict.fromkeys(parts, name))
            progress.advance(1)
    if len(files) > 1:
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}, indent=1), "utf-8")


def _parts(opened: Any, layers: Mapping[str, Levels], config: RoundByGradientConfig) -> dict[str, Any]:
    """The tensors, by name, that replace those of an open file."""
    import torch

    found: dict[str, Any] = {}
    for name in opened.keys():  # noqa: SIM118 (a file, not a mapping)
        module = name.removesuffix(".weight")
        if module in layers and module != name:
            arrays = packed(layers[module], config.bits, config.block_size)
            found.update({f"{module}.{part}": torch.from_numpy(array) for part, array in arrays.items()})
        else:
            found[name] = opened.get_tensor(name)
    return found
