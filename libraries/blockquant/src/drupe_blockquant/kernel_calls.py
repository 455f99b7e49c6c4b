"""Calling the compiled kernels: the arrays they work on, as pointers, then the sizes, in the order of `kernels`."""

from typing import Any

import numpy as np
import numpy.typing as npt

from drupe_blockquant.hqq import Sums
from drupe_blockquant.machine_code import KERNELS, Kernel, entry_point
from drupe_blockquant.reference import shrink_factors
from drupe_blockquant.scheme import Scheme

GROUP = 16  # blocks that the search handles at once
LANES = 2 * GROUP  # two partial sums a block, see `kernels_search.interleave`
LANE_VALUES = 10 * LANES  # values that the search keeps for each lane
CHUNK = 16384  # values that the search loads at a time: 64 kB stay in the second-level cache
PRODUCT_ROWS, PRODUCT_COLUMNS = 6, 32  # the most of a sum of products that is in registers at once
PRODUCT_PANEL = 256  # columns that are in work at a time, so that their factors stay in the first-level cache
LINE = 64  # bytes of a cache line: a vector that crosses its end is loaded in two steps

Parts = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.uint8], npt.NDArray[np.float32]]


def quantize(
    rows: npt.NDArray[Any],
    rows_kind: int,
    scheme: Scheme,
    scales_kind: int,
    importance: npt.NDArray[np.float32] | None,
    out: Parts,
) -> int:
    """Quantize bit patterns [n, K]. Returns the first row that holds NaN or Inf, or -1.

    All arrays are aligned and C-contiguous. `out` is packed [n, bytes], scales float32 [n * blocks], zero points [n,
    bytes] (0 when symmetric), and units float32 [n, 1], which are written only for scales of two levels.
    """
    n, k = rows.shape
    size, blocks = scheme.block_size, scheme.blocks(k)
    search = scheme.method == "search"
    candidates = shrink_factors(scheme.bits, scheme.symmetric) if search else np.empty(0, np.float32)
    at_once = max(1, min(n, CHUNK // (blocks * size))) if search else 1
    scratch = _scratch(at_once, blocks, size)
    arrays = [rows, *out, *scratch, candidates]
    if importance is not None:
        arrays += [_repeated(importance, scratch[0].size, blocks * size), np.empty(GROUP * size, np.float32)]
    sizes = [n, rows_kind, k, scheme.bits, size, blocks, scheme.symmetric, scales_kind]
    packed, _, zero_points, _ = out
    sizes += [packed.shape[1], zero_points.shape[1], at_once, candidates.size]
    kernel = entry_point(quantizer(rows.itemsize, importance is not None))
    return kernel(*[array.ctypes.data for array in arrays], *map(int, sizes))


def quantizer(row_bytes: int, weighted: bool) -> Kernel:
    """The kernel for rows of 2 or 4 bytes a value, with or without weights for columns."""
    return KERNELS[f"quantize_{'weighted_' if weighted else ''}{8 * row_bytes}"]


def add_product(
    rows: npt.NDArray[Any], left: npt.NDArray[np.float32], right: npt.NDArray[np.float32], out: npt.NDArray[Any]
) -> None:
    """out = rows + left x right, for rows of bfloat16 or float32; all arrays are C-contiguous.

    There are at least PRODUCT_ROWS rows and PRODUCT_COLUMNS columns, and `out` does not overlap `rows`.
    """
    arrays = [rows, left, right, _aligned(len(right) * PRODUCT_PANEL), out]
    kernel = entry_point(KERNELS[f"add_product_{8 * rows.itemsize}"])
    kernel(*[array.ctypes.data for array in arrays], *rows.shape, len(right))


def _aligned(count: int) -> npt.NDArray[np.float32]:
    memory = np.empty(count + LINE // 4, np.float32)
    start = -memory.ctypes.data % LINE // 4
    return memory[start : start + count]


def gptq_columns(
    columns: npt.NDArray[np.float32],
    owed: npt.NDArray[np.float32],
    shares: npt.NDArray[np.float32],
    groups: npt.NDArray[np.int64],
    of_blocks: tuple[npt.NDArray[np.float32], ...],
    q_max: int,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Levels and errors of columns [width, n], as `gptq` describes them."""
    owed = owed.copy()
    # The kernel reads what each column owes to those before it, one row a column.
    shares = np.ascontiguousarray(shares.T)
    roots = np.float32(1) / np.diagonal(shares)
    groups = np.ascontiguousarray(groups, np.int64)
    levels, errors = np.empty(columns.shape, np.uint8), np.empty_like(columns)
    arrays = [columns, owed, shares, roots, *of_blocks, groups, levels, errors]
    kernel = entry_point(KERNELS["gptq_columns"])
    kernel(*[array.ctypes.data for array in arrays], *columns.shape, len(of_blocks[0]), q_max)
    return levels, errors


def hqq_fit(
    units: npt.NDArray[np.float32],
    scales: npt.NDArray[np.float32],
    zeros: npt.NDArray[np.float32],
    threshold: float,
    q_max: int,
) -> Sums:
    """The kernel behind `hqq.fit_blocks`."""
    tiles, size, lanes = units.shape
    sums = np.empty((len(Sums._fields), tiles, lanes), np.float32)
    room = np.empty((4 + len(Sums._fields)) * lanes, np.float32)
    arrays = [units, scales, zeros, room, np.array([threshold], np.float32), sums]
    entry_point(KERNELS["hqq_fit"])(*[array.ctypes.data for array in arrays], tiles, size, q_max)
    return Sums(*sums)


def _scratch(at_once: int, blocks: int, block_size: int) -> list[npt.NDArray[Any]]:
    """The arrays of `kernels.Scratch` and `SearchScratch`, in the order of the kernel's arguments."""
    groups = -(-at_once * blocks // GROUP)
    return [
        np.zeros(groups * GROUP * block_size, np.int32),  # rows as bit patterns
        np.empty(blocks, np.int32),  # the least value of each block
        np.empty(blocks, np.int32),  # the greatest
        np.empty(at_once * blocks, np.float32),  # reciprocals of scales
        np.empty(at_once * blocks, np.float32),  # zero points
        np.zeros(blocks * block_size, np.uint8),  # levels of a row
        np.zeros(LANE_VALUES, np.float32),
        np.empty(GROUP * block_size, np.float32),  # a group of blocks, interleaved
    ]


def _repeated(importance: npt.NDArray[np.float32], length: int, width: int) -> npt.NDArray[np.float32]:
    """The columns' weights, repeated for each row in scratch; each row is padded to `width`."""
    padded = np.zeros(length, np.float32)
    for start in range(0, length - width + 1, width):
        padded[start : start + importance.size] = importance
    return padded
