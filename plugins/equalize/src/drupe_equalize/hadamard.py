"""The randomized Hadamard rotation of vectors of any length, by additions (QuaRot, Ashkboos et al. 2024, 2404.00456).

The rotation is Q = D (C x H): D holds random signs, H is Sylvester's Hadamard matrix for the largest power of two that
divides the length, C is the discrete Hartley transform for the remaining odd factor, and x is the Kronecker product.
C x H is symmetric and orthogonal, and no entry is larger than sqrt(2 / length), so one large value spreads over all
channels. An odd factor above `LARGEST_REST` is not transformed: the rotation then works on blocks.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

LARGEST_REST = 64
PIECE = 512 << 10  # bytes: two pieces fit into the second-level cache of a core


def random_signs(length: int, seed: int) -> NDArray[np.int8]:
    """The signs of a rotation, each 1 or -1."""
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), length)


def rotate(values: Float32, signs: NDArray[np.int8], out: Float32) -> None:
    """Rotate `values` [rows, length, columns] along the middle axis into `out`: Q^T v for each vector v.

    The result does not depend on how rows and columns are divided among calls: sums are always taken in one order.
    """
    rows, length, columns = values.shape
    diagonal = signs.astype(np.float32)[:, None]
    wide = max(1, PIECE // (4 * length))  # vectors in a piece
    for row in range(0, rows, max(1, wide // columns)):
        some = slice(row, row + max(1, wide // columns))
        for column in range(0, columns, wide):
            piece = np.s_[some, :, column : column + wide]
            out[piece] = _mixed(values[piece] * diagonal)


def _mixed(values: Float32) -> Float32:
    """`values` [rows, length, columns] times C x H along the middle axis."""
    rows, length, columns = values.shape
    power = length & -length
    rest = length // power
    shaped = values.reshape(rows, rest, power, columns)
    other = np.empty_like(shaped)
    half = power // 2
    # Pease's algorithm: each step moves sums and differences of neighbours to the two halves. After log2(n) steps
    # everything is in order.
    for _ in range(power.bit_length() - 1):
        even, odd = shaped[:, :, 0::2], shaped[:, :, 1::2]
        np.add(even, odd, out=other[:, :, :half])
        np.subtract(even, odd, out=other[:, :, half:])
        shaped, other = other, shaped
    shaped *= np.float32(power**-0.5)
    if 1 < rest <= LARGEST_REST:
        shaped = _hartley_transformed(shaped)
    return shaped.reshape(rows, length, columns)


def _hartley_transformed(values: Float32) -> Float32:
    matrix = hartley(values.shape[1])
    out = np.zeros_like(values)
    for target, source in np.ndindex(matrix.shape):
        out[:, target] += values[:, source] * matrix[target, source]
    return out


@functools.cache
def hartley(order: int) -> Float32:
    """The discrete Hartley transform (Hartley 1942): symmetric and orthogonal, with entries of similar size."""
    angles = 2 * np.pi / order * (np.outer(np.arange(order), np.arange(order)) % order)
    matrix: Float32 = ((np.cos(angles) + np.sin(angles)) / order**0.5).astype(np.float32)
    return matrix
