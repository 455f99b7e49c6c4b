"""ReadingProcess: reads texts with onnxruntime-genai's own tokenizer, which may end a process on a file it dislikes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drupe_onnxruntime.genai.empty_model import write_empty_model
from drupe_processes.child import ChildEnded, ChildProcess
from drupe_tokenization import LARGE_PAGES

PATIENCE = 120.0
"""Seconds after which the process is taken to be caught in a loop."""


class ReadingProcess:
    """The running process. It works on the texts at once; leaving the context ends it.

    The tokenizer belongs to a model in onnxruntime-genai, so the folder gets an empty model.
    """

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        write_empty_model(folder)
        first = {"folder": str(folder), "texts": list(texts)}
        environment = {**LARGE_PAGES, **os.environ, "ORT_DISABLE_TELEMETRY": "1"}
        self._child = ChildProcess("drupe_onnxruntime.genai.reading_process", first, environment)

    def __enter__(self) -> ReadingProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close()

    def answer(self) -> dict[str, Any]:
        """The fields of the Reading, or {"error": why there is none}."""
        try:
            answer: dict[str, Any] = self._child.receive(within=PATIENCE)
        except ChildEnded as end:
            return {"error": str(end)}
        return answer
