"""Data: the forms in which it is read, bad rows, and the tokens that the loss is on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import write_tokenizer

from drupe.api import ModelError, UsageError
from drupe_finetune.arguments import without_arguments
from drupe_finetune.examples import IGNORED, Examples, examples_of
from drupe_finetune.rows import read_as, rows_of
from drupe_finetune.settings import FinetuneConfig

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def examples(path: Path, tokenizer: Any, **settings: Any) -> Examples:
    return examples_of(rows_of(str(path)), tokenizer, FinetuneConfig(data=str(path), **settings))


def texts(found: Examples, tokenizer: Any) -> list[str]:
    return [tokenizer.decode(each["input_ids"]) for each in found.sequences]


ROWS = [{"q": "go", "a": "text"}, {"q": "for", "a": "in"}]
WANTED = ["<|bos|>go:\ntext<|end|>", "<|bos|>for:\nin<|end|>"]


def _jsonl(folder: Path) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    return path


def _json(folder: Path) -> Path:
    path = folder / "rows.json"
    path.write_text(json.dumps(ROWS, indent=1))
    return path


def _csv(folder: Path) -> Path:
    path = folder / "rows.csv"
    path.write_text("q,a\ngo,text\nfor,in\n")
    return path


def _parquet(folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    path = folder / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


def _saved(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(folder / "saved")
    return folder / "saved"


def _folder(folder: Path) -> Path:
    (folder / "files").mkdir()
    for at, row in enumerate(ROWS):
        (folder / "files" / f"{at}.jsonl").write_text(json.dumps(row))
    return folder / "files"


@pytest.mark.parametrize("make", [_jsonl, _json, _csv, _parquet, _saved, _folder])
def test_every_form_gives_the_same_rows(make: Any, tokenizer: Any, tmp_path: Path) -> None:
    found = examples(make(tmp_path), tokenizer, template="{q}:\\n{a}")
    assert texts(found, tokenizer) == WANTED
    assert all(each["labels"] == each["input_ids"] for each in found.sequences)


def test_paragraphs_of_a_text_are_rows(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("go\ntext\n\n\nfor in")
    assert texts(examples(path, tokenizer), tokenizer) == ["<|bos|>go\ntext<|end|>", "<|bos|>for in<|end|>"]


def test_bad_rows_are_named_with_file_and_line_and_counted(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"q": "go", "a": "x"}\n{"q": 1\n[]\n{"q": null, "a": "y"}\n{"q": {}, "a": "y"}\n{"a": "y"}\n')
    found = examples(path, tokenizer, template="{q} {a}")
    assert (found.rows, len(found.sequences)) == (6, 1)
    assert found.bad == [
        "rows.jsonl:2 (it is not JSON)",
        "rows.jsonl:3 (it is no JSON object)",
        "rows.jsonl:4 (it lacks 'q')",
        "rows.jsonl:5 ('q' is no text)",
        "rows.jsonl:6 (it lacks 'q')",
    ]
    assert "5 rows left out" in found.told()[1]


def test_data_without_a_row_to_learn_from_is_an_error(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"q": "  "}\n{"q": null}\n')
    with pytest.raises(UsageError, match=r"no row to learn from, of 2: rows.jsonl:1 \(its text is empty\)"):
        examples(path, tokenizer, column="q")
    with pytest.raises(UsageError, match="no column 'quest'"):
        examples(path, tokenizer, template="{quest}")
    with pytest.raises(UsageError, match="the data has the columns q"):
        examples(path, tokenizer)
    with pytest.raises(UsageError, match="the template is broken"):
        examples(path, tokenizer, template="{q")
    with pytest.raises(UsageError, match="gives q a form"):
        examples(path, tokenizer, template="{q:>10}")
    with pytest.raises(UsageError, match="both say"):
        examples(path, tokenizer, template="{q}", column="q")
    with pytest.raises(UsageError, match="there is no file"):
        examples(tmp_path / "nothing.jsonl", tokenizer)


@pytest.mark.parametrize(
    ("name", "content", "bad"),
    [
        ("ragged.csv", b"q,a\n1,2\n3\n4,5,6\n", ["ragged.csv:3 (it has fewer fields than the header)",
                                                 "ragged.csv:4 (it has more fields than the header)"]),
        ("quoted.csv", b'q\n"a\nb"c\ngo\n', ["quoted.csv:2 (it is not CSV: ',' expected after '\"')"]),
        ("deep.jsonl", b'{"q": "go"}\n{"q": ' + b"[" * 100_000, ["deep.jsonl:2 (it is not JSON)"]),
        ("half.jsonl", b'{"q": "go"}\n{"q": "\\ud800"}\n', ["half.jsonl:2 (it holds half a character)"]),
        ("long.csv", b"q,a\n" + b"x" * 200_000 + b",1\n", []),
        ("marked.jsonl", b'\xef\xbb\xbf{"q": "go"}\r\n', []),
    ],
)  # fmt: skip
def test_a_row_that_is_damaged_is_left_out_and_others_are_kept(
    name: str, content: bytes, bad: list[str], tokenizer: Any, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    found = examples(tmp_path / name, tokenizer, column="q")
    assert found.bad == bad and len(found.sequences) == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cut.json", b'[{"q": "go"},\n{"q":', r"cut\.json is not JSON: it breaks off in line 2"),
        ("noise.parquet", bytes(range(256)), "the parquet file is damaged"),
        ("same.csv", b"q,q\n1,2\n", "two columns have the name 'q'"),
        ("latin.jsonl", b'{"q": "go"}\n{"q": "caf\xe9"}\n', "line 2 is not text in UTF-8"),
        ("open.csv", b'q\ngo\n"for\nin\n', r"open at open\.csv:3 are not closed"),
        ("empty.csv", b"", "no row to learn from, of 0"),
        ("saved/dataset_info.json", b"{}", "the folder holds neither"),
    ],
)
def test_data_that_are_damaged_as_a_whole_are_refused(
    name: str, content: bytes, says: str, tokenizer: Any, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises((UsageError, ModelError), match=says):
        examples(path if path.parent == tmp_path else path.parent, tokenizer, column="q")


def test_the_loss_of_a_chat_is_on_answers_only(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    chat = [("system", "go"), ("user", "for"), ("assistant", "in"), ("user", "text"), ("assistant", "def")]
    rows: list[Any] = [{"messages": [{"role": role, "content": content} for role, content in chat]}]
    rows += [{"messages": [{"from": "human", "value": "for"}, {"from": "gpt", "value": "go"}]}]
    rows += [{"messages": [{"role": "user", "content": "for"}]}, {"messages": "text"}]
    rows += [{"messages": [{"role": "wizard", "content": "for"}, {"role": "assistant", "content": "go"}]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = examples(path, tokenizer)
    first, second = found.sequences
    assert tokenizer.decode(first["input_ids"]) == (
        "<|bos|><|system|>go<|end|><|user|>for<|end|><|assistant|>in<|end|><|user|>text<|end|><|assistant|>def<|end|>"
    )
    learned = [token for token, label in zip(first["input_ids"], first["labels"], strict=True) if label != IGNORED]
    assert tokenizer.decode(learned) == "in<|end|>def<|end|>"
    assert tokenizer.decode([each for each in second["labels"] if each != IGNORED]) == "go<|end|>"
    assert found.bad == [
        "chats.jsonl:3 (it has no answer of the assistant's)",
        "chats.jsonl:4 ('messages' is no list of messages)",
        "chats.jsonl:5 (the role 'wizard' is none that the chat template knows)",
    ]


def test_rows_are_cut_or_packed(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": "go for text in " * count}) for count in (1, 4, 9)))
    cut = examples(path, tokenizer, max_length=10)
    assert max(len(each["input_ids"]) for each in cut.sequences) == 10 and cut.cut == 2
    packed = examples(path, tokenizer, max_length=10, packing=True)
    assert {len(each["input_ids"]) for each in packed.sequences[:-1]} == {10}
    whole = examples(path, tokenizer)
    joined = [[token for each in found.sequences for token in each["input_ids"]] for found in (packed, whole)]
    assert joined[0] == joined[1]


def test_arguments_of_the_libraries_are_taken_out_of_a_line() -> None:
    line = [
        "M",
        "--training.learning_rate",
        "1e-4",
        "--training.bf16",
        "--training.lr-scheduler-type=cosine",
        "--peft.modules_to_save",
        '["lm_head"]',
        "-o",
        "O",
    ]
    rest, found = without_arguments(line)
    assert rest == ["M", "-o", "O"]
    assert found["training"] == {"learning_rate": 1e-4, "bf16": True, "lr_scheduler_type": "cosine"}
    assert found["peft"] == {"modules_to_save": ["lm_head"]}


def test_every_setting_has_an_option_with_its_own_name_and_default() -> None:
    from drupe_finetune.options import option_types
    from drupe_finetune.settings import FinetuneConfig

    found = {name: annotation.__metadata__[0] for name, annotation in option_types().items()}
    assert {*found, "data", "training", "peft"} == set(FinetuneConfig.model_fields)
    assert {"--max-length", "--max-seq-len"} <= {found["max_length"].default, *found["max_length"].param_decls}
    assert found["max_length"].help.endswith("[1024]") and "qlora" in found["method"].help


def test_the_configuration_of_a_data_set_of_the_hub_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Library:
        config = SimpleNamespace(HF_DATASETS_OFFLINE=False)

        @staticmethod
        def load_dataset(*arguments: Any, **named: Any) -> list[dict[str, str]]:
            asked.append((*arguments, named))
            return [{"text": "a"}]

    monkeypatch.setattr("drupe_finetune.rows._datasets", lambda: Library)
    monkeypatch.setattr("drupe_text.hub_datasets._unreachable", lambda datasets, name: "")
    for reference in ("o/n:small@train[:10]", "o/n"):
        assert [row.columns for row in rows_of(reference)] == [{"text": "a"}]
    assert asked == [("o/n", "small", {"split": "train[:10]"}), ("o/n", None, {"split": "train"})]


def test_what_is_read_is_told_where_the_name_does_not_say_it(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# A\n\nb\n")
    assert "read as text" in read_as(str(tmp_path / "README.md")) and read_as(str(_jsonl(tmp_path))) == ""
    assert read_as(str(tmp_path)) == f"reading rows.jsonl of {tmp_path.name}"
    assert read_as(str(tmp_path / "missing.txt")) == "" and read_as("owner/name") == ""


def test_of_a_clone_of_a_data_set_the_split_train_is_learned(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# About it\n")
    (tmp_path / "data").mkdir()
    for at, split in enumerate(("train", "test")):
        (tmp_path / "data" / f"{split}-00000-of-00001.jsonl").write_text(json.dumps(ROWS[at]))
    assert texts(examples(tmp_path, tokenizer, template="{q}:\\n{a}"), tokenizer) == WANTED[:1]
    assert texts(examples(Path(f"{tmp_path}@test"), tokenizer, template="{q}:\\n{a}"), tokenizer) == WANTED[1:]
    one, other = (FinetuneConfig(data=f"{tmp_path}{split}").data_fingerprint for split in ("", "@test"))
    assert one != other


def test_rows_whose_columns_are_all_empty_are_left_out(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("q,a\n,\ngo,\n")
    found = examples(path, tokenizer, template="Q {q} A {a}")
    assert found.bad == ["rows.csv:2 (its text is empty)"] and len(found.sequences) == 1


def test_of_packed_rows_no_sequence_is_without_a_token_to_learn(tokenizer: Any, tmp_path: Path) -> None:
    """Its loss would be no number."""
    path = tmp_path / "chats.jsonl"
    chat = [{"role": "user", "content": "go " * 40}, {"role": "assistant", "content": "in"}]
    path.write_text(json.dumps({"messages": chat}))
    packed = examples(path, tokenizer, max_length=16, packing=True)
    assert packed.sequences
    assert all(any(label != IGNORED for label in each["labels"][1:]) for each in packed.sequences)
    path.write_text("\n".join(json.dumps({"text": "go for"}) for _ in range(4)))
    whole = examples(path, tokenizer)
    length = sum(len(each["input_ids"]) for each in whole.sequences) - 1
    assert len(examples(path, tokenizer, max_length=length, packing=True).sequences) == 1


TEMPLATE = """{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|{{ m.role }}|>{% if m.role ==
'assistant' and loop.last %}def{% endif %}{{ m.content }}{% for call in m.tool_calls or [] %}{{ call.name }}{% endfor %}
<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}""".replace("\n", "")
"""As those of models that think: an answer is shown in another way while it is the last one. It knows tools."""


def test_answers_that_a_template_changes_later_and_calls_of_tools_are_learned(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    calls = {"role": "assistant", "content": None, "tool_calls": [{"name": "for"}]}
    parts = [{"type": "text", "text": "te"}, {"type": "text", "text": "xt"}]
    chat = [{"role": "user", "content": parts}, calls, {"role": "tool", "content": "go"}]
    chat += [{"role": "assistant", "content": "in"}, {"role": "user", "content": "go"}]
    rows: list[Any] = [
        {"messages": json.dumps([*chat, {"role": "assistant", "content": "text"}]), "tools": json.dumps([{"n": 1}])}
    ]
    rows += [{"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    before = tokenizer.chat_template
    try:
        tokenizer.chat_template = TEMPLATE
        found = examples(path, tokenizer)
    finally:
        tokenizer.chat_template = before
    (row,) = found.sequences
    learned = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED]
    assert tokenizer.decode(learned) == "for<|end|>in<|end|>deftext<|end|>"
    assert tokenizer.decode(row["input_ids"]).startswith('[{"n": 1}]<|user|>text<|end|>')
    assert found.bad == ["chats.jsonl:2 (a message has a part of the type 'image', and only text is learned)"]
    with pytest.raises(UsageError, match="it has 'tools', for which the chat template has no place"):
        examples(path, tokenizer)
