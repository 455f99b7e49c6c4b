"""`drupe generate` and `drupe chat` with the demo's model in onnxruntime-genai."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import drupe
from drupe_decoding import Generation, Message

pytest.importorskip("onnxruntime_genai")
demo = pytest.importorskip("drupe_demo")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "package"
    drupe.optimize(demo.MODEL, folder, quality="fast", verify=False)
    return folder


def run(*arguments: str, said: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "drupe", *arguments]
    options = {"encoding": "utf-8", "errors": "surrogateescape", "env": {**os.environ, **environment}}
    return subprocess.run(command, input=said, capture_output=True, check=False, **options)


def test_generate_prints_the_text_and_the_rates_on_standard_error(package: Path) -> None:
    with drupe.open(package) as session:
        expected = session.generate("def parse(", max_new_tokens=12)
    for arguments, said in ((["def parse("], ""), (["-"], "def parse(")):
        done = run("generate", str(package), *arguments, "--max_new_tokens", "12", said=said)
        assert (done.returncode, done.stdout) == (0, f"def parse({expected}\n")
        assert re.fullmatch(r"\d+ prompt tokens at [\d,]+ tok/s, 12 new ones at [\d,]+ tok/s\n", done.stderr)


def test_an_empty_prompt_is_one_message_and_nothing_else(package: Path) -> None:
    done = run("generate", str(package), "")
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "error: the prompt is empty\n  try: give a text to continue\n",
    )


def test_chat_answers_each_line_of_a_pipe_knowing_those_before(package: Path) -> None:
    generation = Generation(max_new_tokens=8)
    turns: list[Message] = []
    with drupe.open(package) as session:
        for said in ("def parse(text):", "class Reader:"):
            turns.append(Message("user", said))
            turns.append(Message("assistant", session.generate(session.conversation(turns), generation)))
    done = run("chat", str(package), "--max-new-tokens", "8", said="def parse(text):\n\nclass Reader:\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "".join(f"{turn.content}\n" for turn in turns if turn.role == "assistant")


def test_bytes_that_are_not_text_are_replaced(package: Path) -> None:
    more = ("--max-new-tokens", "2", "--system", "be \udcff")
    for reading in ("utf-8:strict", "utf-8:surrogateescape"):
        done = run("chat", str(package), *more, said="def \udcff\udcfe(\n", PYTHONIOENCODING=reading)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_a_text_cut_short_by_max_length_prints_a_note(package: Path) -> None:
    done = run("generate", str(package), "def parse(", "--max-new-tokens", "50", "--max-length", "12")
    assert done.returncode == 0
    assert "cut short: there is room for 12 tokens" in done.stderr and "--max-length" in done.stderr
    done = run("generate", str(package), "def parse(" * 20, "--max-length", "12")
    assert done.returncode == 2 and "raise --max-length" in done.stderr
    done = run("generate", str(package), "def parse(" * 2000, "--max-length", "1000000")
    assert done.returncode == 2 and "the model's context has no more room" in done.stderr


def test_the_error_for_a_damaged_package_names_the_file(package: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(package, tmp_path / "copy"))
    with (copy / "model.onnx.data").open("r+b") as data:
        data.truncate(1000)
    done = run("generate", str(copy), "def parse(")
    assert done.returncode == 7
    assert "'model.onnx.data' is damaged: it has 1000 bytes and had" in done.stderr
