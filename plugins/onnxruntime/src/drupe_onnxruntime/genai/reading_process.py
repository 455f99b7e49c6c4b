"""A process that reads texts with onnxruntime-genai's own tokenizer, which may end a process on a file it dislikes.

It gets one line of JSON: a folder with the tokenizer's files, and the texts. The tokenizer belongs to a model there, so
the folder also gets a model of one node. The process prints a `Reading` as JSON, or {"error": ...}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PATIENCE = 120.0
"""Seconds after which the process is taken to be caught in a loop."""
CONFIG: dict[str, Any] = {
    "model": {
        "type": "decoder", "vocab_size": 2, "context_length": 2, "bos_token_id": 0, "eos_token_id": 0,
        "pad_token_id": 0,
        "decoder": {
            "filename": "model.onnx", "head_size": 1, "hidden_size": 1, "num_attention_heads": 1,
            "num_key_value_heads": 1, "num_hidden_layers": 1,
            "session_options": {"provider_options": []},
            "inputs": {"input_ids": "input_ids"}, "outputs": {"logits": "logits"},
        },
    },
    "search": {"max_length": 2},
}  # fmt: skip


class ReadingProcess:
    """The running process. `answer` waits for it; leaving the context ends it."""

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        write_model(folder)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "drupe_onnxruntime.genai.reading_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        )  # fmt: skip
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"folder": str(folder), "texts": list(texts)}) + "\n")
            self._process.stdin.flush()
        except OSError:  # it has ended already; `answer` says why
            pass

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


def write_model(folder: Path) -> None:
    """Put the model of one node, and its genai_config.json, beside the tokenizer's files."""
    from drupe_onnx import ir

    tokens = ir.Value(name="input_ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["batch", "tokens"]))
    logits = ir.Value(name="logits", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["batch", "tokens"]))
    node = ir.Node("", "Identity", [tokens], outputs=[logits])
    graph = ir.Graph([tokens], [logits], nodes=[node], opset_imports={"": 17}, name="identity")
    ir.save(ir.Model(graph, ir_version=8), folder / "model.onnx")
    (folder / "genai_config.json").write_text(json.dumps(CONFIG))


def main() -> None:
    import onnxruntime_genai

    orders = json.loads(sys.stdin.readline())
    try:
        tokenizer = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(orders["folder"]))
        answer = reading(tokenizer, orders["texts"])
    except Exception as error:  # bindings raise classes of their own
        answer = {"error": str(error).strip()}
    print(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # a runtime's own clean-up at exit takes time


def reading(tokenizer: Any, texts: Sequence[str]) -> dict[str, Any]:
    """The fields of what an onnxruntime_genai.Tokenizer makes of texts."""
    from drupe_tokenization.comparison import CONTEXT

    context, *tokens = [tokenizer.encode(text).tolist() for text in (CONTEXT, *texts)]
    decoded = []
    for each in tokens:
        stream = tokenizer.create_stream()
        decoded.append("".join(stream.decode(token) for token in [*context, *each] if token >= 0))
    tokenizer.update_options(add_special_tokens="true")
    return {"tokens": tokens, "begun": tokenizer.encode(CONTEXT).tolist(), "decoded": decoded}


if __name__ == "__main__":
    main()
