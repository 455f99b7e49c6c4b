"""Running auto-round on a model, and reading its matrices as levels, scales and zero points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import Context, ModelError, Record
from drupe_blockquant.torch_threads import torch_threads
from drupe_checkpoints import Checkpoint

if TYPE_CHECKING:
    from drupe_quant_autoround.configuration import RoundByGradientConfig


FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What auto-round raises where a model is not made as it expects, such as one whose layers share a block (Zamba 2)."""
FARTHEST = 0.25
"""The largest distance of a value from a level: bfloat16 rounds 15 levels by 0.03."""


class Levels(Record):
    """A matrix [N, K] whose values are (level - zero point) * scale.

    levels: uint8 [N, K]. scales: float16 or float32 [N, groups]. zero_points: uint8 [N, groups].
    """

    levels: NDArray[np.uint8]
    scales: NDArray[Any]
    zero_points: NDArray[np.uint8]


def tune(
    checkpoint: Checkpoint, sequences: Sequence[Sequence[int]], config: RoundByGradientConfig, context: Context
) -> Mapping[str, Levels]:
    """The matrices of all decoder blocks, rounded by auto-round, by the names of their modules.

    auto-round's own packing is not used, because it changes zero points of 0 to 1 and all other tensors to float16.
    """
    import torch
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    folder = checkpoint.folder
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    batches = list(torch.split(torch.tensor(sequences), config.batch_size))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    with torch_threads(context.threads):
        rounding = AutoRound(
            model,
            tokenizer,
            bits=config.bits,
            group_size=config.block_size,
            sym=config.symmetric,
            iters=config.iterations,
            dataset=batches,
            nsamples=len(sequences),
            seqlen=config.calibration_length,
            batch_size=config.batch_size,
            seed=context.seed,
            device_map=device,
            amp=device != "cpu",
            low_cpu_mem_usage=False,
            enable_torch_compile=False,
        )
        try:
            rounded, _ = rounding.quantize()
        except (SystemExit, *FAILURES) as error:  # auto-round ends the process where it cannot go on
            raise ModelError(
                f"auto-round cannot run this model ({type(error).__name__}: {error}); its messages are above",
                where=folder,
                cure="--quality best calibrates without auto-round",
            ) from error
    found = {name: levels_of(module, config.bits) for name, module in rounded.named_modules() if _is_rounded(module)}
    if not found:
        raise ModelError("auto-round found no matrix to round in the model", where=folder)
    return found


def _is_rounded(module: Any) -> bool:
    import torch

    return isinstance(module, torch.nn.Linear) and getattr(module, "scale", None) is not None


def levels_of(layer: Any, bits: int) -> Levels:
    """The levels of a layer that auto-round has rounded: its values, `scale` [N, groups], and `zp`.

    Raises ModelError where a value is not a level times its scale.
    """
    values = layer.weight.detach().float().cpu().numpy()
    n, k = values.shape
    stored = layer.scale.detach().cpu()
    scales = (stored if str(stored.dtype) == "torch.float16" else stored.float()).numpy().reshape(n, -1)
    middle = layer.zp if not hasattr(layer.zp, "numpy") else layer.zp.detach().float().cpu().numpy().reshape(-1)
    zero_points = np.broadcast_to(np.rint(middle), scales.size).reshape(scales.shape)
    columns = np.arange(k) // int(layer.group_size)
    exact = values / scales.astype(np.float32)[:, columns] + zero_points[:, columns]
    levels = np.rint(exact)
    if not (np.abs(exact - levels) < FARTHEST).all() or levels.min() < 0 or levels.max() >= 1 << bits:
        raise ModelError("auto-round made weights that are not multiples of their scales, such as NaN or Inf")
    return Levels(levels.astype(np.uint8), scales, zero_points.astype(np.uint8))
