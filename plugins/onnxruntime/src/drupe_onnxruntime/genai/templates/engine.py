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
CONFIG = {
    "model": {
        "type": "llama", "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "context_length": 8, "vocab_size": 3,
        "decoder": {
            "filename": "model.onnx", "head_size": 1, "hidden_size": 1, "num_attention_heads": 1,
            "num_hidden_layers": 0, "num_key_value_heads": 1, "inputs": {"input_ids": "input_ids"},
            "outputs": {"logits": "logits"}, "session_options": {"log_severity_level": 4, "provider_options": []},
        },
    },
    "search": {"max_length": 8},
}  # fmt: skip


@dataclass(frozen=True)
class Rendered:
    """What became of a conversation: a text, or else an error."""

    text: str | None
    error: str = ""


@contextmanager
def template_engine(tokens: Mapping[str, str]) -> Iterator[TemplateEngine]:
    """The engine, for a model with these special tokens."""
    with tempfile.TemporaryDirectory(prefix="drupe-") as scratch:
        folder = Path(scratch)
        _write_model(folder / "model.onnx")
        (folder / "genai_config.json").write_text(json.dumps(CONFIG))
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

    def render(self, template: str, conversations: Sequence[Conversation]) -> list[Rendered]:
        """What the engine makes of each conversation."""
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **self._tokens, "chat_template": template}
        cases = [
            [json.dumps(each.messages), json.dumps(each.tools) if each.tools else None, each.add_generation_prompt]
            for each in conversations
        ]
        reply = self._ask({"settings": settings, "cases": cases})
        if reply is None:
            self.close()
            self._process = _start(self._folder)
            return [Rendered(None, CRASHED) for _ in cases]
        return [Rendered(text, error) for text, error in reply]

    def _ask(self, question: Mapping[str, Any]) -> list[tuple[str | None, str]] | None:
        """The answer of the process; None where it crashes or takes too long."""
        timer = threading.Timer(SECONDS, self._process.kill)
        timer.start()
        try:
            print(json.dumps(question), file=_pipe(self._process.stdin), flush=True)
            line = _pipe(self._process.stdout).readline()
        except BrokenPipeError:
            line = ""
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


def _write_model(path: Path) -> None:
    """A graph that opens and does nothing: onnxruntime-genai gives a tokenizer only with a model."""
    from drupe_onnx import ir

    tokens = ir.Value(name="input_ids", shape=ir.Shape(["batch", "sequence"]), type=ir.TensorType(ir.DataType.INT64))
    node = ir.node("Cast", [tokens], {"to": ir.DataType.FLOAT.value})
    (logits,) = node.outputs
    logits.name, logits.type, logits.shape = "logits", ir.TensorType(ir.DataType.FLOAT), tokens.shape
    graph = ir.Graph([tokens], [logits], nodes=[node], opset_imports={"": 17}, name="nothing")
    ir.save(ir.Model(graph, ir_version=8), path)
