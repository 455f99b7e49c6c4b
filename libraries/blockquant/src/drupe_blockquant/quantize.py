"""Quantizing rows: checks the arguments, chooses numba or numpy, and names a weight that is NaN or infinite."""

import functools
import importlib.util
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from drupe_blockquant import hqq, reference
from drupe_blockquant.layout import Array, Quantized, as_float32
from drupe_blockquant.scheme import Method, NonFiniteError, Scheme

if TYPE_CHECKING:
    from drupe_blockquant.machine_code import Kernel

_BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
# The kernels' codes. uint16 holds bit patterns of bfloat16: safetensors readers without ml_dtypes give these.
_KINDS: dict[np.dtype[Any], int] = {
    np.dtype(np.float32): 0,
    np.dtype(np.float16): 1,
    _BFLOAT16: 2,
    np.dtype(np.uint16): 2,
}
_KIND_NAMES = ("float32", "float16", "bfloat16")
_TWO_LEVEL = 3  # the kernels' code for scales that are multiples of a row's unit
_VALUES_AT_ONCE = 1 << 18  # values in each of numpy's working arrays: 1 MB


def backend() -> str:
    """ "numba", or "numpy" where numba is missing or the environment variable DRUPE_BLOCKQUANT says numpy."""
    wanted = os.environ.get("DRUPE_BLOCKQUANT", "")
    if wanted not in ("", "numba", "numpy"):
        raise ValueError(f"DRUPE_BLOCKQUANT must be numba or numpy, not {wanted!r}")
    return wanted or ("numba" if _has_numba() else "numpy")


def quantize_rows(
    rows: Array,
    scheme: Scheme,
    scales_dtype: npt.DTypeLike = np.float32,
    *,
    importance: Array | None = None,
    out: Quantized | None = None,
) -> Quantized:
    """Quantize rows [n, K] of float32, float16 or bfloat16 (ml_dtypes', or bit patterns as uint16).

    Scales are rounded to `scales_dtype` (float32, float16 or bfloat16) before the levels are computed, so the levels
    fit the scale that is stored. A scale too large for float16 saturates. Where the scheme has two levels of scales,
    scales are rounded to multiples of the row's unit instead, and `scales_dtype` is ignored.

    `importance`, [K] and not negative, weights the squared error of each column in the search. `out` holds C-contiguous
    arrays of the right shapes that receive the results (bfloat16 also as uint16), so a writer can quantize into its own
    buffer.

    The GIL is released while a kernel runs: call it on row ranges from several threads. Rows that are not C-contiguous
    are copied first.

    Raises NonFiniteError for a weight that is NaN or infinite (the contents of `out` are undefined then), ValueError
    for arguments that do not fit together.
    """
    kind = _check_rows(rows)
    scales_type = np.dtype(np.uint8) if scheme.two_level else _scales_type(scales_dtype)
    n, k = rows.shape
    weights = _check_importance(importance, k, scheme)
    out = _allocate(n, k, scheme, scales_type) if out is None else out
    _check_out(out, n, k, scheme, scales_type)
    if n == 0:
        return out
    if scheme.method == "hqq" or backend() == "numpy":
        _run_numpy(rows, scheme, _KIND_NAMES[_KINDS.get(scales_type, 0)], weights, out)
    else:
        _run_kernel(rows, kind, scheme, _KINDS.get(scales_type, _TWO_LEVEL), weights, out)
    return out


def is_ready(rows_dtype: npt.DTypeLike = _BFLOAT16, *, weighted: bool = False, method: Method = "rtn") -> bool:
    """Whether the kernel for rows of this dtype is compiled; if not, the first call compiles for some ten seconds."""
    kind = _kind_of(np.dtype(rows_dtype))
    if backend() != "numba":
        return True
    from drupe_blockquant import machine_code

    return machine_code.is_ready(_kernel(kind, weighted, method))


def warm_up(rows_dtype: npt.DTypeLike = _BFLOAT16, *, weighted: bool = False, method: Method = "rtn") -> None:
    """Load or compile the kernel for rows of this dtype. May be called in a thread."""
    kind = _kind_of(np.dtype(rows_dtype))
    if backend() == "numba":
        from drupe_blockquant import machine_code

        machine_code.entry_point(_kernel(kind, weighted, method))


def _kernel(kind: int, weighted: bool, method: Method) -> "Kernel":
    from drupe_blockquant import kernel_calls, machine_code

    return machine_code.KERNELS["hqq_fit"] if method == "hqq" else kernel_calls.quantizer(_row_bytes(kind), weighted)


def _row_bytes(kind: int) -> int:
    return 4 if kind == 0 else 2


def _kind_of(dtype: np.dtype[Any]) -> int:
    kind = _KINDS.get(dtype)
    if kind is None:
        raise ValueError(f"rows must be float32, float16 or bfloat16 (or its bits as uint16), not {dtype}")
    return kind


def _run_kernel(
    rows: Array, kind: int, scheme: Scheme, scales_kind: int, weights: Array | None, out: Quantized
) -> None:
    from drupe_blockquant import kernel_calls

    n = len(rows)
    pattern = np.require(rows, requirements=["C", "A"]).view(np.uint32 if kind == 0 else np.uint16)
    scales = out.scales if out.scales.dtype == np.float32 else np.empty(out.scales.shape, np.float32)
    zero_points = np.empty((n, 0), np.uint8) if out.zero_points is None else out.zero_points
    units = np.empty((n, 1), np.float32)
    parts = out.packed.reshape(n, -1), scales.reshape(-1), zero_points, units
    bad = kernel_calls.quantize(pattern, kind, scheme, scales_kind, weights, parts)
    if bad >= 0:
        raise NonFiniteError(bad, int(np.flatnonzero(~np.isfinite(as_float32(rows[bad])))[0]))
    if scales is not out.scales:
        _store(out.scales, scales)
    if out.units is not None:
        _store(out.units, units)


def _run_numpy(rows: Array, scheme: Scheme, scales_dtype: str, weights: Array | None, out: Quantized) -> None:
    """In slices of rows, so that no working array is large."""
    work = _in_numpy(scheme, scales_dtype, weights)
    packed = out.packed.reshape(len(rows), -1)
    at_once = max(1, _VALUES_AT_ONCE // (scheme.blocks(rows.shape[1]) * scheme.block_size))
    for start in range(0, len(rows), at_once):
        here = slice(start, start + at_once)
        try:
            found = work(as_float32(rows[here]))
        except NonFiniteError as error:
            raise NonFiniteError(start + error.row, error.column) from None
        packed[here] = found.packed.reshape(len(found.packed), -1)
        _store(out.scales[here], found.scales)
        if out.zero_points is not None and found.zero_points is not None:
            out.zero_points[here] = found.zero_points
        if out.units is not None and found.units is not None:
            _store(out.units[here], found.units)


def _in_numpy(
    scheme: Scheme, scales_dtype: str, weights: Array | None
) -> Callable[[npt.NDArray[np.float32]], Quantized]:
    if scheme.method != "hqq":
        return lambda values: reference.quantize(values, scheme, scales_dtype, weights)
    if backend() == "numpy":
        return lambda values: hqq.quantize(values, scheme, scales_dtype, hqq.fit_blocks)
    from drupe_blockquant import kernel_calls

    return lambda values: hqq.quantize(values, scheme, scales_dtype, kernel_calls.hqq_fit)


def _check_rows(rows: Array) -> int:
    kind = _kind_of(rows.dtype)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"rows must be a matrix with at least one column, not of shape {rows.shape}")
    return kind


def _check_importance(importance: Array | None, k: int, scheme: Scheme) -> Array | None:
    if importance is None:
        return None
    if scheme.method != "search":
        raise ValueError(f"importance has no effect with method '{scheme.method}': it weights the error of 'search'")
    if importance.shape != (k,):
        raise ValueError(f"importance must have one value a column, shape ({k},), not {importance.shape}")
    weights = np.ascontiguousarray(importance, np.float32)
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("importance must be finite and not negative")
    # Only the ratios matter; a common factor keeps the sums of the search within the range of float32.
    largest = weights.max()
    return weights / largest if largest > 0 else np.ones_like(weights)


def _scales_type(scales_dtype: npt.DTypeLike) -> np.dtype[Any]:
    scales_type = _BFLOAT16 if scales_dtype == "bfloat16" else np.dtype(scales_dtype)
    if scales_type not in _KINDS or scales_type == np.uint16:
        raise ValueError(f"scales must be float32, float16 or bfloat16, not {scales_type}")
    return scales_type


def _allocate(n: int, k: int, scheme: Scheme, scales_type: np.dtype[Any]) -> Quantized:
    blocks = scheme.blocks(k)
    return Quantized(
        np.empty((n, blocks, scheme.block_size * scheme.bits // 8), np.uint8),
        np.empty((n, blocks), scales_type),
        None if scheme.symmetric else np.empty((n, scheme.zero_point_width(k)), np.uint8),
        np.empty((n, 1), _BFLOAT16) if scheme.two_level else None,
    )


def _check_out(out: Quantized, n: int, k: int, scheme: Scheme, scales_type: np.dtype[Any]) -> None:
    bfloat16 = (_BFLOAT16, np.dtype(np.uint16))
    patterns = bfloat16 if scales_type == _BFLOAT16 else (scales_type,)
    _check_array("packed", out.packed, n * scheme.packed_width(k), (np.dtype(np.uint8),))
    _check_array("scales", out.scales, n * scheme.blocks(k), patterns, (n, scheme.blocks(k)))
    if scheme.symmetric != (out.zero_points is None):
        raise ValueError("out.zero_points must be None for a symmetric scheme, and an array for an asymmetric one")
    if out.zero_points is not None:
        width = scheme.zero_point_width(k)
        _check_array("zero_points", out.zero_points, n * width, (np.dtype(np.uint8),), (n, width))
    if scheme.two_level != (out.units is not None):
        raise ValueError("out.units must be an array where scales have two levels, and None where they have one")
    if out.units is not None:
        _check_array("units", out.units, n, bfloat16, (n, 1))


def _check_array(
    name: str, array: Array, size: int, dtypes: tuple[np.dtype[Any], ...], shape: tuple[int, ...] | None = None
) -> None:
    if array.size != size or (shape is not None and array.shape != shape) or array.dtype not in dtypes:
        wanted = f"{dtypes[0]} of shape {shape}" if shape else f"{dtypes[0]} of {size} values"
        raise ValueError(f"out.{name} must be {wanted}, not {array.dtype} of shape {array.shape}")
    if not (array.flags.c_contiguous and array.flags.writeable):
        raise ValueError(f"out.{name} must be C-contiguous and writable")


def _store(target: Array, values: npt.NDArray[np.float32]) -> None:
    """Store float32 values that are exact in the target's dtype."""
    if target.dtype == np.uint16:
        target[...] = values.view(np.uint32) >> np.uint32(16)
    else:
        target[...] = values.astype(target.dtype)


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None
