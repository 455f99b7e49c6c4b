"""TemplateEngine: onnxruntime-genai's template engine, in a process of its own.

The engine is native code, and the template comes with the model: one that makes it crash or run forever must not stop
the conversion.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from drupe.api import RuntimeMissing
from drupe_onnxruntime.genai.empty_model import write_empty_model
from drupe_tokenization import Conversation

KNOWN_TOKENS = ("bos_token", "eos_token")
"""The special tokens that the engine has a text for."""
SECONDS = 20
"""How long the engine may take for one template."""
CRASHED = "the engine crashed or did not end"
TOKENIZER: dict[str, Any] = {
    "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
    "decoder": None, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
}  # fmt: skip


@dataclass(frozen=True)
class Rendered:
    """What became of a conversation: a text, or else an error."""

    text: str | None
    error: str = ""


@contextmanager
def template_engine(tokens: Mapping[str, str]) -> Iterator[TemplateEngine]:
    """The engine, for a model with these special tokens. It starts while the caller does something else."""
    with tempfile.TemporaryDirectory(prefix="drupe-") as scratch:
        folder = Path(scratch)
        write_empty_model(folder)
        (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
        engine = TemplateEngine(folder, {name: tokens[name] for name in KNOWN_TOKENS if name in tokens})
        try:
            yield engine
        finally:
            engine.close()


class TemplateEngine:
    """Renders conversations with chat templates. It starts again after a crash."""

    def __init__(self, folder: Path, tokens: Mapping[str, str]) -> None:
        self._folder = folder
        self._tokens = tokens
        self._process = _start(folder)
        self._is_ready = False

    def render(self, template: str, conversations: Sequence[Conversation]) -> list[Rendered]:
        """What the engine makes of each conversation. Raises RuntimeMissing where it does not start."""
        self._wait_until_ready()
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **self._tokens, "chat_template": template}
        cases = [
            [json.dumps(each.messages), json.dumps(each.tools) if each.tools else None, each.add_generation_prompt]
            for each in conversations
        ]
        reply = self._ask({"settings": settings, "cases": cases})
        if reply is None:
            self.close()
            self._process = _start(self._folder)
            self._is_ready = False
            return [Rendered(None, CRASHED) for _ in cases]
        return [Rendered(text, error) for text, error in reply]

    def _wait_until_ready(self) -> None:
        if not self._is_ready and self._answer() is None:
            self.close()
            raise RuntimeMissing("onnxruntime-genai is installed, but cannot be loaded", cure="install it again")
        self._is_ready = True

    def _ask(self, question: Mapping[str, Any]) -> list[tuple[str | None, str]] | None:
        """The answer of the process to a question; None where it crashes or takes too long."""
        try:
            print(json.dumps(question), file=_pipe(self._process.stdin), flush=True)
        except BrokenPipeError:
            return None
        return self._answer()

    def _answer(self) -> list[tuple[str | None, str]] | None:
        """The next answer of the process, of which the first is empty; None where there is none in time."""
        timer = threading.Timer(SECONDS, self._process.kill)
        timer.start()
        try:
            line = _pipe(self._process.stdout).readline()
        finally:
            timer.cancel()
        return json.loads(line) if line else None

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _start(folder: Path) -> subprocess.Popen[str]:
    # -P: Python must not import modules from the working folder.
    command = [sys.executable, "-P", "-m", "drupe_onnxruntime.genai.templates.engine_process", str(folder)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
    )
