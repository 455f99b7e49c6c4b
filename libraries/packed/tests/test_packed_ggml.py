"""The block formats of GGUF: reading gives their values, and repacking keeps their levels and scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf_files import quantized, unpermuted, values_of

from drupe.api import ModelError
from drupe_blockquant import Scheme
from drupe_blockquant.layout import Quantized, dequantize_rows
from drupe_onnx import Expression, Files, from_json, ir, to_json
from drupe_packed import PackedMatrix, Repacked, ggml
from drupe_packed.ggml_types import TYPES
from drupe_packed.repacking import minimums_of

KINDS = {kind.name: kind for kind in TYPES.values()}


def held(folder: Path, kind: str, n: int = 48, k: int = 128) -> tuple[Expression, np.ndarray]:
    """A random matrix of a type, which starts at byte 96 of a file, and its values."""
    content = quantized(np.random.default_rng(0).standard_normal((n, k)).astype(np.float32), kind)
    (folder / "file").write_bytes(bytes(96) + content.tobytes())
    return ggml.tensor(folder / "file", "x", KINDS[kind], (n, k), 96), values_of(content, kind)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q4_0", "Q4_1", "Q8_0"])
def test_rows_are_the_values_of_the_matrix(tmp_path: Path, kind: str) -> None:
    matrix, values = held(tmp_path, kind)
    assert matrix.shape == values.shape
    with Files() as files:
        for start, stop in ((0, 48), (7, 23)):
            np.testing.assert_array_equal(matrix.rows(start, stop, files), values[start:stop])
    assert from_json(to_json(matrix)) == matrix


@pytest.mark.parametrize(("kind", "bits"), [("Q4_0", 4), ("Q8_0", 8)])
@pytest.mark.parametrize("heads", [None, 3])
def test_a_repacked_matrix_has_the_same_values(tmp_path: Path, kind: str, bits: int, heads: int | None) -> None:
    matrix, values = held(tmp_path, kind)
    if heads:
        matrix, values = ggml.unpermuted(matrix, heads), unpermuted(values, heads)
    assert isinstance(matrix, PackedMatrix)
    scheme = Scheme(bits, 32)
    with Files() as files:
        np.testing.assert_array_equal(matrix.rows(5, 31, files), values[5:31])
        packed, scales = Repacked((matrix,), scheme, ir.DataType.FLOAT16).produce(0, 48, files)
        np.testing.assert_array_equal(dequantize_rows(Quantized(packed, scales, None), scheme, 128), values)
        np.testing.assert_array_equal(
            Repacked((matrix,), scheme, ir.DataType.FLOAT16).produce(9, 30, files)[0], packed[9:30]
        )


@pytest.mark.parametrize("heads", [None, 3])
def test_a_block_with_a_minimum_is_repacked_as_levels_and_a_shift(tmp_path: Path, heads: int | None) -> None:
    matrix, values = held(tmp_path, "Q4_1")
    if heads:
        matrix, values = ggml.unpermuted(matrix, heads), unpermuted(values, heads)
    assert isinstance(matrix, PackedMatrix)
    minimums = minimums_of([matrix, matrix])
    assert minimums is not None and minimums.shape == (96, 4)
    with Files() as files:
        np.testing.assert_array_equal(matrix.rows(5, 31, files), values[5:31])
        packed, scales = Repacked((matrix,), Scheme(4, 32), ir.DataType.FLOAT16).produce(0, 48, files)
        first = dequantize_rows(Quantized(packed, scales, None), Scheme(4, 32), 128)
        shifts = minimums.rows(48, 96, files).astype(np.float32) + 8 * scales.astype(np.float32)
    np.testing.assert_allclose(first + shifts.repeat(32, axis=1), values, rtol=0, atol=1e-6)


def test_a_minimum_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    held(tmp_path, "Q4_1")
    content = bytearray((tmp_path / "file").read_bytes())
    content[96 + 2 : 96 + 4] = np.float16(np.nan).tobytes()
    (tmp_path / "file").write_bytes(content)
    matrix = ggml.tensor(tmp_path / "file", "blk.0.ffn_up.weight", KINDS["Q4_1"], (48, 128), 96)
    assert isinstance(matrix, PackedMatrix) and matrix.minimums is not None
    with Files() as files, pytest.raises(ModelError, match=r"minimums of 'blk\.0\.ffn_up\.weight' hold NaN"):
        matrix.minimums.rows(0, 1, files)


def test_rows_of_float_matrices_are_unpermuted_too(tmp_path: Path) -> None:
    matrix, values = held(tmp_path, "F32")
    with Files() as files:
        found = ggml.unpermuted(matrix, 3).rows(0, 48, files)
    np.testing.assert_array_equal(found, unpermuted(values, 3))


def test_blocks_of_six_bits_are_read_like_a_block_computed_by_hand(tmp_path: Path) -> None:
    """The level of each value is put together from its low and its high bits, in ggml's layout."""
    random = np.random.default_rng(4)
    block = random.integers(0, 256, 210).astype(np.uint8)
    block[208:] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    expected = np.empty(256, np.float32)
    for half in range(2):
        low, high = block[64 * half :][:64], block[128 + 32 * half :][:32]
        scales = block[192 + 8 * half :][:8].view(np.int8)
        for at in range(32):
            levels = [
                (low[at] & 15) | ((high[at] >> 0 & 3) << 4),
                (low[at + 32] & 15) | ((high[at] >> 2 & 3) << 4),
                (low[at] >> 4) | ((high[at] >> 4 & 3) << 4),
                (low[at + 32] >> 4) | ((high[at] >> 6 & 3) << 4),
            ]
            for quarter, level in enumerate(levels):
                scale = 0.5 * float(scales[2 * quarter + at // 16])
                expected[128 * half + 32 * quarter + at] = scale * (int(level) - 32)
    (tmp_path / "file").write_bytes(block.tobytes())
    with Files() as files:
        found = ggml.tensor(tmp_path / "file", "x", KINDS["Q6_K"], (1, 256), 0).rows(0, 1, files)
    np.testing.assert_array_equal(found[0], expected)


def test_scales_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    matrix, _ = held(tmp_path, "Q4_0")
    content = bytearray((tmp_path / "file").read_bytes())
    content[96:98] = np.float16(np.nan).tobytes()
    (tmp_path / "file").write_bytes(content)
    assert isinstance(matrix, PackedMatrix)
    with Files() as files, pytest.raises(ModelError, match="the scales of 'x' hold NaN or Inf"):
        Repacked((matrix,), Scheme(4, 32), ir.DataType.FLOAT).produce(0, 48, files)
