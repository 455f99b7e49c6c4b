"""Users are told where onnxruntime-genai's own tokenizer differs, and Drupe's sessions take the right tokens anyway."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizer_forms import MAKERS, tokenizer_files
from tokenizers import Tokenizer

from drupe.api import Model, Notice, Runtime, Target
from drupe_onnxruntime.genai import token_check
from drupe_onnxruntime.genai import tokenizer_files as adapting
from drupe_onnxruntime.genai.runtime import OnnxRuntimeGenai
from drupe_onnxruntime.plain.runtime import OnnxRuntime
from drupe_tokenization import Difference


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No check takes the answer of an earlier one."""
    monkeypatch.setattr(token_check, "_known", {})


def notices(name: str, scratch: Path, rows: int = 10_000) -> list[Notice]:
    """What is said of a form of tokenizer.json."""
    files: dict[str, Path | bytes] = dict(tokenizer_files(name))
    files.update(adapting.readable(files))
    document = adapting.tokenizer_in(files)
    files.update(adapting.own_form(files, document).files())
    with token_check.token_check(files, document, rows, scratch) as found:
        return list(found())


def test_nothing_is_said_of_a_tokenizer_that_is_read_as_meant(tmp_path: Path) -> None:
    assert notices("llama3", tmp_path) == []


def test_a_difference_is_said_with_a_count_an_example_and_what_to_do(tmp_path: Path) -> None:
    (notice,) = notices("neox", tmp_path)
    assert (notice.about, notice.handling) == ("tokenizer", "served by Drupe only")
    assert "other tokens of 26 of 544 texts, such as 'A\\u030a': 'A' 'Ì' 'Ĭ' instead of 'Ãħ'" in notice.what
    assert "append_tokens()" in notice.cure


def test_an_example_begins_at_the_first_difference() -> None:
    same = list("abcdefghij")
    assert token_check._both(Difference("", [*same, "x"], [*same, "y"])) == "'y' instead of 'x' behind 10 equal tokens"
    assert token_check._both(Difference("", ["a", "x"], ["a"])) == "'a' instead of 'a' 'x'"
    assert token_check._both(Difference("", "abc", "abd")) == "'abd' instead of 'abc'"


def test_a_tokenizer_that_it_cannot_read_is_said_with_its_reason(tmp_path: Path) -> None:
    (notice,) = notices("bert", tmp_path)
    assert "cannot read this one: Unsupported tokenizer class: WordPiece" in notice.what
    assert "append_tokens()" in notice.cure


def test_a_runtime_that_ends_the_process_is_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'reading_process' in ' '.join(sys.orig_argv): os._exit(139)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (notice,) = notices("llama3", tmp_path)
    assert notice.what.endswith("the process ended with status 139")


def test_without_the_runtime_it_is_said_that_nothing_was_compared(
    tmp_path: Path, wheels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels.clear()
    monkeypatch.setattr("drupe_onnxruntime.wheels._bringing", lambda module: ())
    (notice,) = notices("neox", tmp_path)
    assert (notice.handling, notice.cure) == (
        "not checked",
        "pip install 'drupe[cpu]' (or 'drupe[cuda]', 'drupe[directml]')",
    )
    assert "onnxruntime-genai is not installed" in notice.what


@pytest.mark.parametrize("name", MAKERS)
def test_the_vocabulary_is_listed_unless_its_numbers_surely_end_below_the_rows(name: str) -> None:
    files: dict[str, Path | bytes] = dict(tokenizer_files(name))
    files.update(adapting.readable(files))
    document = adapting.tokenizer_in(files)
    numbers = Tokenizer.from_buffer(adapting.read(files["tokenizer.json"])).get_vocab().values()
    for rows in range(max(numbers) - 3, max(numbers) + 4):
        assert max(numbers) < rows or not document.numbers_end_below(rows)
    assert document.numbers_end_below(10_000_000) == (document.kind != "Unigram")


@pytest.mark.parametrize(("rows", "said"), [(900, ""), (899, "1 token of"), (890, "10 tokens of")])
def test_tokens_without_a_row_are_counted_and_named(tmp_path: Path, rows: int, said: str) -> None:
    found = notices("gpt2", tmp_path, rows)
    assert [notice.handling for notice in found] == (["no row"] if said else [])
    assert all(notice.what.startswith(said) and f"({rows})" in notice.what for notice in found)


def test_what_was_found_is_kept_while_the_process_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = notices("neox", tmp_path)
    monkeypatch.setattr(token_check, "ReferenceProcess", None)
    assert notices("neox", tmp_path) == first


def opened(runtime: Runtime, model: Model, target: Target) -> Any:
    return runtime.open(model, target)


def made_with(kit: SimpleNamespace, folder: Path, name: str, target: Target) -> Model:
    """A package of a model with this form of tokenizer.json."""
    checkpoint = kit.make_checkpoint(folder / "checkpoint", template=None, vocab_size=1200)
    for file, content in tokenizer_files(name).items():
        (checkpoint / file).write_bytes(content)
    made: Model = kit.make_package(checkpoint, folder / "package", target)
    return made


@pytest.mark.parametrize("name", ["mistral3", "neox", "bert"])
def test_a_session_takes_the_tokens_of_tokenizers(kit: SimpleNamespace, tmp_path: Path, cpu: Target, name: str) -> None:
    from tokenizers import Tokenizer

    made = made_with(kit, tmp_path, name, cpu)
    right = Tokenizer.from_file(str(made.location / "tokenizer.json"))
    for runtime in (OnnxRuntimeGenai(), OnnxRuntime()):
        with opened(runtime, made, cpu) as session:
            for text in ("Hello", " Hello", "cafe\u0301 <|user|> Hi", "a',,b\r\n"):
                assert session.encode(text) == right.encode(text).ids


def test_a_package_whose_tokenizer_it_cannot_read_generates_in_both_runtimes(
    kit: SimpleNamespace, tmp_path: Path, cpu: Target
) -> None:
    made = made_with(kit, tmp_path, "bert", cpu)
    answers = []
    for runtime in (OnnxRuntimeGenai(), OnnxRuntime()):
        with opened(runtime, made, cpu) as session:
            answers.append(session.generate("hello world", max_new_tokens=8))
    assert answers[0] == answers[1] != ""


def test_a_plain_script_gets_the_beginning_of_sequence_where_it_asks_for_it(package: Model, cpu: Target) -> None:
    import onnxruntime_genai

    tokenizer = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(str(package.location)))
    tokenizer.update_options(add_special_tokens="true")
    with opened(OnnxRuntimeGenai(), package, cpu) as session:
        assert tokenizer.encode("def parse(").tolist() == session.encode("def parse(")
        assert (
            session.encode("def parse(")[0]
            == json.loads((package.location / "genai_config.json").read_text())["model"]["bos_token_id"]
        )
