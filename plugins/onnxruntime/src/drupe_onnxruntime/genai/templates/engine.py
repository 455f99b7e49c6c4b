"""TemplateEngine: onnxruntime-genai's template engine, in a process of its own.

The engine is native code, and the template comes with the model: one that makes it crash or run forever must not stop
the conversion.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drupe.api import Record, RuntimeMissing
from drupe_onnxruntime.genai.empty_model import write_empty_model
from drupe_processes.child import ChildEnded, ChildProcess
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


class Rendered(Record):
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
        self._start()

    def _start(self) -> None:
        self._child = ChildProcess("drupe_onnxruntime.genai.templates.engine_process", str(self._folder))
        self._is_ready = False

    def render(self, template: str, conversations: Sequence[Conversation]) -> list[Rendered]:
        """What the engine makes of each conversation. Raises RuntimeMissing where it does not start."""
        self._wait_until_ready()
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **self._tokens, "chat_template": template}
        cases = [
            [json.dumps(each.messages), json.dumps(each.tools) if each.tools else None, each.add_generation_prompt]
            for each in conversations
        ]
        self._child.send({"settings": settings, "cases": cases})
        try:
            reply = self._child.receive(within=SECONDS)
        except ChildEnded:
            self.close()
            self._start()
            return [Rendered(None, CRASHED) for _ in cases]
        return [Rendered(text, error) for text, error in reply]

    def _wait_until_ready(self) -> None:
        if self._is_ready:
            return
        try:
            self._child.receive(within=SECONDS)
        except ChildEnded as end:
            what = f"onnxruntime-genai is installed, but cannot be loaded: {end}"
            raise RuntimeMissing(what, cure="install it again") from None
        self._is_ready = True

    def close(self) -> None:
        """End the process."""
        self._child.close()
