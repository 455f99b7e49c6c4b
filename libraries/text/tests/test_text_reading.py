"""Reading text from files, folders and data sets, and the errors for those that cannot be read."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from drupe.api import UsageError
from drupe_text import CalibrationConfig, Text
from drupe_text.folders import data_files

WORDS = ["first document", "second\ndocument", "third"]
JOINED = "\n\n".join(WORDS)


def write_lines(path: Path, *rows: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_two_texts_that_ship_with_drupe_share_no_line() -> None:
    evaluation, calibration = Text().read(), Text(None, "calibration").read()
    assert len(evaluation) > 3000
    assert len(calibration) > 500_000
    assert calibration == Text(None, "calibration").read()
    lines = {line.strip() for line in calibration.splitlines()}
    assert not {line.strip() for line in evaluation.splitlines() if len(line) > 40} & lines


def test_byte_order_mark_and_carriage_returns_of_a_file_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffeins\r\nzwei ä\r\n".encode())
    assert Text(str(path)).read() == "eins\nzwei ä\n"


def test_the_fingerprint_is_that_of_the_text_that_is_read(tmp_path: Path) -> None:
    plain, lines = tmp_path / "a.txt", write_lines(tmp_path / "a.jsonl", *({"text": word} for word in WORDS))
    plain.write_text(JOINED)
    assert Text(str(plain)).fingerprint == hashlib.sha256(JOINED.encode()).hexdigest()
    assert Text(str(lines)).fingerprint == Text(str(plain)).fingerprint
    plain.write_text(JOINED + ".")
    assert Text(str(lines)).fingerprint != Text(str(plain)).fingerprint


@pytest.mark.parametrize("key", ["text", "content"])
def test_the_text_of_json_lines_is_the_field_text_or_the_only_string(tmp_path: Path, key: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", *({"id": 3, key: word} for word in WORDS))
    assert Text(str(path)).read() == JOINED


def test_a_json_array_of_objects_is_read_as_rows(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"text": word} for word in WORDS], indent=1))
    assert Text(str(tmp_path / "a.json")).read() == JOINED
    (tmp_path / "c.json").write_text(json.dumps(WORDS))
    assert Text(str(tmp_path / "c.json")).read() == JOINED
    write_lines(tmp_path / "b.json", *({"text": word} for word in WORDS))
    assert Text(str(tmp_path / "b.json")).read() == JOINED


def test_rows_without_text_are_skipped(tmp_path: Path) -> None:
    empty = [{"n": 1, "text": None}, {"n": None, "text": None}]
    path = write_lines(tmp_path / "a.jsonl", empty[0], *({"text": word} for word in WORDS), empty[1])
    assert Text(str(path)).read() == JOINED
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table({"n": [1, 2, 3, 4, 5], "text": [None, *WORDS, None]}), tmp_path / "a.parquet")
    assert Text(str(tmp_path / "a.parquet")).read() == JOINED


def test_the_field_of_a_file_can_be_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"title": "t", "body": "b"})
    assert Text(f"{path}#body").read() == "b"
    with pytest.raises(UsageError, match="several fields hold text") as told:
        Text(str(path)).read()
    assert told.value.cure == "append the field: #title or #body"
    with pytest.raises(UsageError, match="no field 'bdy'"):
        Text(f"{path}#bdy").read()


def test_a_file_name_with_at_and_hash_signs_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a@b#c.txt"
    path.write_text("words")
    assert Text(str(path)).read() == "words"


def test_the_error_for_another_encoding_names_the_first_wrong_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"abc " * 100 + "für alle".encode("latin1"))
    with pytest.raises(UsageError, match="byte 401 is 0xfc") as told:
        Text(str(path)).read()
    assert told.value.where == str(path)
    assert "iconv -f latin1" in (told.value.cure or "")
    path.write_bytes("für alle".encode("utf-16"))
    with pytest.raises(UsageError) as told:
        Text(str(path)).read()
    assert "iconv -f utf-16" in (told.value.cure or "")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt", b" \n\n ", "the text is empty"),
        ("a.jsonl", b"", "the text is empty"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON: Expecting value in column 1"),
        ("a.jsonl", b'["a"]\n', "line 1 is not a JSON object"),
        ("a.jsonl", b'{"n": 1}\n', "no field holds text"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3, "more": 2}\n', "no field holds text"),
        ("a.json", b'[{"text": "a"}, {"text": "b"', "not JSON"),
        ("a.json", b'[{"text": "a"}, ["b"]]', "item 2 is not a JSON object"),
        ("a.parquet", b"PAR1 no more", "not a complete parquet file"),
    ],
)
def test_broken_files_are_errors(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=complaint) as told:
        Text(str(tmp_path / name)).read()
    assert str(tmp_path / name) in (told.value.where or "")


@pytest.mark.parametrize("reference", ["no/such/file.txt", "missing.txt", "./missing/one", "word", "x" * 5000, "a\0b"])
def test_a_missing_path_is_an_error(reference: str) -> None:
    with pytest.raises(UsageError, match="no file or folder") as told:
        Text(reference).read()
    assert "--evaluation-data FILE" in (told.value.cure or "")


def test_only_the_beginning_of_a_long_text_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drupe_text.text.LIMIT", 25)
    plain, lines = tmp_path / "a.txt", write_lines(tmp_path / "a.jsonl", *({"text": "abc"} for _ in range(50)))
    plain.write_bytes("ä".encode() * 100)
    assert Text(str(plain)).read() == "ä" * 12
    assert Text(str(lines)).read() == "abc"


def test_a_folder_of_files_is_read_in_order_and_by_split(tmp_path: Path) -> None:
    write_lines(tmp_path / "train-00001.jsonl", {"text": "two"})
    write_lines(tmp_path / "train-00000.jsonl", {"text": "one"})
    write_lines(tmp_path / "test-00000.jsonl", {"text": "held out"})
    (tmp_path / "notes.txt").write_text("not read")
    assert Text(str(tmp_path), "calibration").read() == "one\n\ntwo"
    assert Text(str(tmp_path), "evaluation").read() == "held out"
    assert Text(f"{tmp_path}@train").read() == "one\n\ntwo"
    with pytest.raises(UsageError, match="no split 'dev'"):
        Text(f"{tmp_path}@dev").read()


def test_a_clone_of_a_data_set_is_read_by_split_and_without_what_is_about_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.md").write_text("about")
    write_lines(tmp_path / ".git" / "a.jsonl", {"text": "hidden"})
    write_lines(tmp_path / "data" / "words_train.jsonl", {"text": "one"})
    write_lines(tmp_path / "data" / "words_validation.jsonl", {"text": "two"})
    assert Text(str(tmp_path), "calibration").read() == "one"
    assert Text(f"{tmp_path}@validation", "calibration").read() == "two"


def test_the_folder_of_a_data_set_in_the_cache_of_the_hub_is_read(tmp_path: Path) -> None:
    for commit in ("old", "new"):
        (tmp_path / "snapshots" / commit).mkdir(parents=True)
        write_lines(tmp_path / "snapshots" / commit / "train.jsonl", {"text": commit})
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "main").write_text("new")
    assert Text(str(tmp_path), "calibration").read() == "new"


def test_files_that_say_a_split_are_left_out_where_others_say_none(tmp_path: Path) -> None:
    for name in ("rows", "test"):
        write_lines(tmp_path / f"{name}.jsonl", {"text": name})
    assert [path.name for path in data_files(tmp_path, None, ("train",), (".jsonl",))] == ["rows.jsonl"]
    assert [path.name for path in data_files(tmp_path, "test", ("train",), (".jsonl",))] == ["test.jsonl"]


def test_a_folder_without_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither \.parquet, \.arrow, \.jsonl or \.txt files"):
        Text(str(tmp_path)).read()


def test_a_parquet_file_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table({"n": [1, 2, 3], "text": WORDS}), tmp_path / "a.parquet")
    assert Text(str(tmp_path / "a.parquet")).read() == JOINED
    assert Text(str(tmp_path)).read() == JOINED


def test_a_folder_saved_by_datasets_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    train, test = (datasets.Dataset.from_dict({"n": [0] * len(words), "body": words}) for words in (WORDS, WORDS[:1]))
    train.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "both")
    assert Text(str(tmp_path / "one")).read() == JOINED
    assert Text(str(tmp_path / "both"), "calibration").read() == JOINED
    assert Text(str(tmp_path / "both"), "evaluation").read() == WORDS[0]


class Hub(ModuleType):
    """A stand-in for the library `datasets`, with one data set on the hub."""

    config = SimpleNamespace(HF_DATASETS_OFFLINE=False)

    def __init__(self) -> None:
        super().__init__("datasets")
        self.taken = 0

    def load_dataset(self, name: str, configuration: str | None, streaming: bool) -> dict[str, Any]:
        if name != "acme/words" or configuration != "raw":
            raise ConnectionError(f"Couldn't reach '{name}' on the Hub")
        assert streaming
        return {"train": self.rows("train"), "test": self.rows("test")}

    def rows(self, split: str) -> Iterator[dict[str, Any]]:
        for at in range(1000):
            self.taken += 1
            yield {"id": at, "text": f"{split} {at}"}
            yield {"id": at, "text": None}


def test_a_data_set_of_the_hub_is_streamed_until_there_is_enough_text(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setitem(sys.modules, "datasets", hub)
    monkeypatch.setattr("drupe_text.hub_datasets._unreachable", lambda datasets, name: "")
    monkeypatch.setattr("drupe_text.text.LIMIT", 40)
    assert Text("acme/words:raw").read().startswith("test 0\n\ntest 1\n\n")
    assert hub.taken < 10
    assert Text("acme/words:raw@train#text").read().startswith("train 0\n\n")
    with pytest.raises(UsageError, match=r"cannot be loaded: Couldn't reach 'acme/other'") as told:
        Text("acme/other").read()
    assert "acme/other" in (told.value.where or "")


def test_a_hub_that_cannot_be_reached_is_one_error_without_a_second_attempt(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    code = "from drupe_text import Text\nText('acme/words').read()"
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **nobody}, capture_output=True, text=True)
    assert "UsageError: there is no file or folder acme/words here, and the data set acme/words is not" in done.stderr
    assert "Retry" not in done.stderr


def test_without_the_library_datasets_a_hub_data_set_is_an_error_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match="library for the hub's data sets is not installed") as told:
        Text("acme/words").read()
    assert "drupe-text[datasets]" in (told.value.cure or "")


def test_the_key_of_a_calibrating_pass_contains_the_fingerprint_of_its_text(tmp_path: Path) -> None:
    path, same = tmp_path / "a.txt", tmp_path / "b.txt"
    for each in (path, same):
        each.write_text("words")
    before = CalibrationConfig(calibration_data=str(path)).model_dump()
    assert before["calibration_fingerprint"] == hashlib.sha256(b"words").hexdigest()
    path.write_text("other words")
    assert CalibrationConfig(calibration_data=str(path)).model_dump() != before
    with pytest.raises(UsageError, match="no file or folder"):
        CalibrationConfig(calibration_data="missing.txt").model_dump()


def test_a_relative_path_in_a_setting_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a plan means the same text in any working folder."""
    (tmp_path / "some.jsonl").write_text('{"text": "hello"}\n')
    monkeypatch.chdir(tmp_path)
    assert CalibrationConfig(calibration_data="some.jsonl#text").calibration_data == f"{tmp_path}/some.jsonl#text"
    assert CalibrationConfig(calibration_data="owner/name@train").calibration_data == "owner/name@train"
