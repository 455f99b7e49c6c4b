"""Schemes: invalid ones are refused, their bytes are counted, and a block size is chosen that suits a row."""

import subprocess
import sys

import pytest

from drupe_blockquant import Scheme, choose_block_size


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"bits": 3}, "bits"),
        ({"block_size": 24}, "block_size"),
        ({"block_size": 512}, "block_size"),
        ({"method": "gptq"}, "method"),
    ],
)
def test_the_error_for_an_invalid_scheme_names_the_field(arguments, word):
    with pytest.raises(ValueError, match=word):
        Scheme(**arguments)


def test_the_bytes_of_a_scheme_count_values_scales_and_zero_points():
    scheme = Scheme(bits=4, block_size=32, symmetric=False)
    assert (scheme.blocks(100), scheme.packed_width(100), scheme.zero_point_width(100)) == (4, 64, 2)
    assert scheme.bytes_for(n=10, k=100, scale_bytes=2) == 10 * (64 + 4 * 2 + 2)
    assert Scheme(bits=4, block_size=32, symmetric=True).bytes_for(10, 100, 2) == 10 * (64 + 4 * 2)


@pytest.mark.parametrize(
    ("k", "wanted", "chosen"),
    [
        (576, 128, 64),
        (896, 128, 128),
        (4096, 128, 128),
        (1536, 256, 256),
        (96, 128, 32),
        (1, 128, 32),
        (64, 16, 16),
        (4864, 32, 32),
    ],
)
def test_the_chosen_block_size_is_the_largest_with_little_padding(k, wanted, chosen):
    assert choose_block_size(k, wanted) == chosen


def test_the_chosen_block_size_takes_nearly_the_fewest_bytes():
    for k in range(1, 2000, 7):
        cost = {size: Scheme(4, size, False).bytes_for(1, k, 4) for size in (32, 64, 128)}
        assert cost[choose_block_size(k, 128)] <= 1.02 * min(cost.values())


def test_planning_imports_neither_numpy_nor_numba():
    code = "import sys, drupe_blockquant; print([m for m in ('numpy', 'numba') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_numba_is_not_imported_before_a_matrix_is_quantized():
    code = "import sys, drupe_blockquant as b; b.quantize_rows; print('numba' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
