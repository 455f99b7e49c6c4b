"""The texts that `drupe embed` is given in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from drupe.api import UsageError
from drupe_feature_extraction.embed import embed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"one\n\ntwo\n", "line 2 holds no text"),
        (b"one\r\n \r\ntwo\r\n\r\n", "line 2 holds no text (and 1 more line)"),
        ("a\u2028b\n\nc".encode(), "line 2 holds no text"),
        (b"", "there is no text"),
        (b"a\xe9", "the file is not text in UTF-8: byte 1 is 0xe9"),
    ],
)
def test_a_file_with_no_text_on_a_line_is_refused_by_name_and_line_before_a_package_is_opened(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        embed("no package", file=file)
    assert (caught.value.what, caught.value.where) == (said, str(file))
