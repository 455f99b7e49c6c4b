"""The program that quantized a checkpoint, by the names of its tensors, whatever config.json says."""

from __future__ import annotations

from collections.abc import Mapping

GPTQ_OR_AWQ, COMPRESSED_TENSORS, MLX = "GPTQ or AWQ", "compressed-tensors", "MLX"
FP8_BY_BLOCK = "FP8 with a scale for each block"
MARKS: Mapping[str, tuple[str, ...]] = {
    GPTQ_OR_AWQ: (".qweight",),
    "bitsandbytes": (".SCB", ".weight_format", ".absmax", ".quant_map", ".quant_state.bitsandbytes__nf4",
                   ".quant_state.bitsandbytes__fp4"),
    COMPRESSED_TENSORS: (".weight_packed", ".weight_zero_point"),
    FP8_BY_BLOCK: (".weight_scale_inv",),
    "NVIDIA's Model Optimizer": (".weight_scale_2", ".input_scale", ".pre_quant_scale"),
    "FP8 or int8 with a scale for each channel": (".weight_scale", ".weight_scales"),
    "HQQ": (".W_q",),
    "AQLM": (".codebooks", ".codes"),
    "VPTQ": (".centroids",),
    "Quanto": (".weight._data", ".weight._scale"),
    "torchao": ("._weight_qdata", "._weight_scale", ".weight_qdata"),
    "MXFP4": ("_blocks",),
    MLX: (".biases",),
}  # fmt: skip
"""The ends of names that only a program's quantized checkpoints have."""
EVERY_MARK = tuple(end for ends in MARKS.values() for end in ends)
FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})


def dialect_of(types: Mapping[str, str]) -> tuple[str, str] | None:
    """The program that quantized the weights, and a tensor that shows it; None where no name shows one.

    types: the type of each tensor by its name.
    """
    marked = [name for name in types if name.endswith(EVERY_MARK)]
    for dialect, ends in MARKS.items():
        if found := next((name for name in marked if name.endswith(ends)), None):
            return dialect, found
    return None


def are_floats(types: Mapping[str, str]) -> bool:
    """Whether all weights are in floating point."""
    stored = (kind for name, kind in types.items() if name.endswith(".weight"))
    return dialect_of(types) is None and all(kind in FLOATS for kind in stored)
