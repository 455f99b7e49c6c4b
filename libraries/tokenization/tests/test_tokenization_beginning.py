"""The beginning of sequence is put before a prompt once, and nothing behind it."""

from __future__ import annotations

import pytest

from drupe_tokenization.tokenizer import with_beginning


@pytest.mark.parametrize(
    ("plain", "special", "expected"),
    [
        ([5, 6], [5, 6], [5, 6]),
        ([5, 6], [1, 5, 6], [1, 5, 6]),
        ([1, 5, 6], [1, 1, 5, 6], [1, 5, 6]),
        ([5, 6], [1, 5, 6, 2], [1, 5, 6]),
        ([5, 6], [5, 6, 2], [5, 6]),
        ([5, 5], [5, 5], [5, 5]),
        ([], [1], [1]),
        ([], [], []),
        ([5, 6], [1, 7], [1, 7]),
    ],
)
def test_the_beginning_is_there_once_and_no_end(plain: list[int], special: list[int], expected: list[int]) -> None:
    assert with_beginning(plain, special) == expected
