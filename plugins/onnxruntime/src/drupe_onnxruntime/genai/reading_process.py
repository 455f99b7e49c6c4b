"""A process that reads texts with onnxruntime-genai's own tokenizer, which may end a process on a file it dislikes.

It gets one line of JSON: a folder with the tokenizer's files, and the texts. The tokenizer belongs to a model there, so
the folder also gets an empty model. The process prints a `Reading` as JSON, or {"error": ...}.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drupe_onnxruntime.genai.empty_model import write_empty_model
from drupe_tokenization import LARGE_PAGES

PATIENCE = 120.0
"""Seconds after which the process is taken to be caught in a loop."""
FAILED = [-1]
"""The tokens of a text that it raises an error for. It also gives -1 for what its vocabulary lacks."""


class ReadingProcess:
    """The running process. `answer` waits for it; leaving the context ends it."""

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        write_empty_model(folder)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "drupe_onnxruntime.genai.reading_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
            env={**LARGE_PAGES, **os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        )  # fmt: skip
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # where it has ended already, `answer` says why
            self._process.stdin.write(json.dumps({"folder": str(folder), "texts": list(texts)}) + "\n")
            self._process.stdin.flush()

    def __enter__(self) -> ReadingProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def answer(self) -> dict[str, Any]:
        """The fields of the Reading, or {"error": why there is none}."""
        try:
            output, errors = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return {"error": f"no answer within {PATIENCE:.0f} seconds"}
        try:
            answer: dict[str, Any] = json.loads(output)
        except ValueError:
            last = errors.strip().splitlines()[-1:]
            return {"error": last[0] if last else f"the process ended with status {self._process.returncode}"}
        return answer


def main() -> None:
    orders = json.loads(sys.stdin.readline())
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what native code prints must not stand in the answer
    import onnxruntime_genai

    try:
        tokenizer = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(orders["folder"]))
        answer = reading(tokenizer, orders["texts"])
    except Exception as error:  # bindings raise classes of their own
        answer = {"error": str(error).strip()}
    print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # a runtime's own clean-up at exit takes time


def reading(tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    """The fields of what an onnxruntime_genai.Tokenizer makes of texts."""
    from drupe_tokenization.comparison import CONTEXT

    context, *tokens = [_tokens(tokenizer, text) for text in (CONTEXT, *texts)]
    decoded = [_text(tokenizer, [*context, *each]) for each in tokens]
    tokenizer.update_options(add_special_tokens="true")
    return {"tokens": tokens, "begun": _tokens(tokenizer, CONTEXT), "decoded": decoded}


def _tokens(tokenizer: Any, text: str) -> list[int]:
    """The text's tokens; FAILED where it raises an error."""
    try:
        tokens: list[int] = tokenizer.encode(text).tolist()
    except Exception:  # bindings raise classes of their own
        return FAILED
    return tokens


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text that a stream gives for the tokens, as far as it knows them."""
    stream = tokenizer.create_stream()
    try:
        return "".join(stream.decode(token) for token in tokens if token >= 0)
    except Exception as error:  # bindings raise classes of their own
        return str(error)


if __name__ == "__main__":
    main()
