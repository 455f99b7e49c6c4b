"""Scheme: bits, block size, symmetry and method of a block quantization, and the bytes that it takes.

Planning reads this module in processes that never touch a weight, so it imports neither numpy nor numba.
"""

from typing import Literal, get_args

from drupe.api import Record

Method = Literal["rtn", "search", "hqq"]

BITS = (2, 4, 8)
BLOCK_SIZES = (16, 32, 64, 128, 256)
UNIT_BYTES = 2
"""Bytes of a row's unit where scales have two levels; each scale takes one byte more."""


class NonFiniteError(ValueError):
    """A weight is NaN or infinite; `row` and `column` say where, counted within the rows that were given."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__(f"the weight at row {row}, column {column} is NaN or infinite and cannot be quantized")
        self.row = row
        self.column = column


class Scheme(Record):
    """How the rows of a matrix are quantized: each run of `block_size` values of a row shares a scale and a zero point.

    `symmetric` fixes the zero point at 2^(bits-1) and stores none. `method` is "rtn" (round to nearest, equal to ONNX
    Runtime's own quantizer), "search" (per block, the scale and zero point of least squared error among candidates) or
    "hqq" (half-quadratic splitting for a norm that forgives outliers, with integer zero points).

    `two_level`: a scale is stored in 8 bits, as a multiple of its row's unit, a bfloat16. Llama.cpp's k-quants do the
    same with 6 bits and eight blocks. It needs an asymmetric scheme, because symmetric scales may be negative.
    """

    bits: int = 4
    block_size: int = 32
    symmetric: bool = True
    method: Method = "rtn"
    two_level: bool = False

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"bits must be one of {BITS}, not {self.bits!r}")
        if self.block_size not in BLOCK_SIZES:
            raise ValueError(f"block_size must be a power of two from 16 to 256, not {self.block_size!r}")
        if self.method not in get_args(Method):
            raise ValueError(f"method must be one of {get_args(Method)}, not {self.method!r}")
        if self.two_level and self.symmetric:
            raise ValueError("two_level needs symmetric=False: symmetric scales may be negative")

    def blocks(self, k: int) -> int:
        """Blocks in a row of k values; the last one is padded."""
        return -(-k // self.block_size)

    def packed_width(self, k: int) -> int:
        """Bytes of packed values for a row of k values."""
        return self.blocks(k) * self.block_size * self.bits // 8

    def zero_point_width(self, k: int) -> int:
        """Bytes of packed zero points for a row of k values; 0 when symmetric, since then none are stored."""
        return 0 if self.symmetric else -(-self.blocks(k) * self.bits // 8)

    def bytes_for(self, n: int, k: int, scale_bytes: int) -> int:
        """Bytes for an [n, k] matrix: values, scales of `scale_bytes` each, or of two levels, and zero points."""
        scales = self.blocks(k) + UNIT_BYTES if self.two_level else self.blocks(k) * scale_bytes
        return n * (self.packed_width(k) + scales + self.zero_point_width(k))


def choose_block_size(
    k: int, wanted: int, *, bits: int = 4, symmetric: bool = False, scale_bytes: int = 4, tolerance: float = 0.02
) -> int:
    """The largest block size, at most `wanted`, whose total bytes are within `tolerance` of the least possible.

    A large block saves scales, but pads every row to a whole block: at K = 576 a block of 128 pads to 640 and takes
    more bytes than a block of 64, which fits exactly. The candidates are the powers of two from 32 (or `wanted`, if
    that is 16) to `wanted`. The tolerance prefers the larger block where the bytes are about equal, because large
    blocks decode faster.
    """
    if k < 1:
        raise ValueError(f"a row must have at least one value, not {k}")
    if wanted not in BLOCK_SIZES:
        raise ValueError(f"block size must be a power of two from 16 to 256, not {wanted!r}")
    candidates = [size for size in BLOCK_SIZES if min(32, wanted) <= size <= wanted]
    cost = {size: Scheme(bits, size, symmetric).bytes_for(1, k, scale_bytes) for size in candidates}
    least = min(cost.values())
    return max(size for size in candidates if cost[size] <= least * (1 + tolerance))
