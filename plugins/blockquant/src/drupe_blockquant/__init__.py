"""Block quantization numerics and packing, in the layout of ONNX Runtime's MatMulNBits.

Importing this package is cheap: `Scheme` and what plans sizes need neither numpy nor numba. The numerics are imported
when one of their names is first used, numba when kernels have to be compiled: once on a machine.
"""

from typing import TYPE_CHECKING, Any

from drupe_blockquant.scheme import NonFiniteError, Scheme, choose_block_size

if TYPE_CHECKING:
    from drupe_blockquant.gptq import GptqFactor, gptq_factor, gptq_rows
    from drupe_blockquant.layout import (
        Quantized,
        dequantize_rows,
        pack_levels,
        pack_zero_points,
        unpack_levels,
        unpack_zero_points,
    )
    from drupe_blockquant.quantize import backend, is_ready, quantize_rows, warm_up

__version__ = "0.1.0"

__all__ = [
    "GptqFactor",
    "NonFiniteError",
    "Quantized",
    "Scheme",
    "backend",
    "choose_block_size",
    "dequantize_rows",
    "gptq_factor",
    "gptq_rows",
    "is_ready",
    "pack_levels",
    "pack_zero_points",
    "quantize_rows",
    "unpack_levels",
    "unpack_zero_points",
    "warm_up",
]

_GPTQ = {"GptqFactor", "gptq_factor", "gptq_rows"}
_LAYOUT = {"Quantized", "dequantize_rows", "pack_levels", "pack_zero_points", "unpack_levels", "unpack_zero_points"}
_QUANTIZE = {"backend", "is_ready", "quantize_rows", "warm_up"}


def __getattr__(name: str) -> Any:
    if name in _GPTQ:
        from drupe_blockquant import gptq

        return getattr(gptq, name)
    if name in _LAYOUT:
        from drupe_blockquant import layout

        return getattr(layout, name)
    if name in _QUANTIZE:
        from drupe_blockquant import quantize

        return getattr(quantize, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
