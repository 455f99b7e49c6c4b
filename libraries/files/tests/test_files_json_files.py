"""JSON files: what is wrong with one is said in plain words."""

from __future__ import annotations

import pytest

from drupe.api import ModelError
from drupe_files import json_object, json_value


def read(content: bytes) -> dict[str, object]:
    return json_object(content, "config.json", "folder/config.json", "download it again")


def test_an_object_is_read_and_a_value_may_be_any() -> None:
    assert read(b'{"a": 1}') == {"a": 1}
    assert json_value(b"[1]", "modules.json", "modules.json", "") == [1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "config.json is empty"),
        (b" \n", "config.json holds only blanks"),
        (b"\0" * 64, "config.json holds only blanks and zero bytes"),
        (b"[1]", "config.json is not a JSON object but a list"),
        (b"null", "config.json is not a JSON object but null"),
        ('\ufeff{"a": 1}'.encode(), "config.json begins with a byte order mark, which JSON does not allow"),
        ('{"a": 1}'.encode("utf-16"), "config.json is text in UTF-16, and JSON is in UTF-8"),
        (b'{"a": "\xe9"}', "config.json is not JSON: byte 7 is not text in UTF-8"),
        (b'{"a": 1,\n "b": ', "config.json is not JSON: it breaks off in line 2"),
        (b'{"a": "x\n"}', "config.json is not JSON: Invalid control character in line 1, column 9"),
        (b'{"a": 1 "b": 2}', "config.json is not JSON: Expecting ',' delimiter in line 1, column 9"),
        (b'{"a": ' + b"9" * 5000 + b"}", "config.json is not JSON: a number is too long"),
        (b"[" * 100_000, "config.json is not JSON: its values are nested too deeply"),
    ],
)
def test_other_content_is_an_error_that_says_what_is_wrong_and_where(content: bytes, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        read(content)
    assert (caught.value.what, str(caught.value.where)) == (said, "folder/config.json")
    assert "download it again" in (caught.value.cure or "")


def test_a_file_in_another_encoding_can_be_saved_again() -> None:
    with pytest.raises(ModelError) as caught:
        read('{"a": 1}'.encode("utf-16"))
    assert "save it as UTF-8" in (caught.value.cure or "")
