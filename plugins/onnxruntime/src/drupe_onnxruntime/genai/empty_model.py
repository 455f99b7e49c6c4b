"""write_empty_model: a model that opens and does nothing. onnxruntime-genai gives a tokenizer only with a model."""

from __future__ import annotations

import json
from pathlib import Path

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


def write_empty_model(folder: Path) -> None:
    """Put the graph and its genai_config.json into a folder."""
    from drupe_onnx import ir

    tokens = ir.Value(name="input_ids", shape=ir.Shape(["batch", "sequence"]), type=ir.TensorType(ir.DataType.INT64))
    node = ir.node("Cast", [tokens], {"to": ir.DataType.FLOAT.value})
    (logits,) = node.outputs
    logits.name, logits.type, logits.shape = "logits", ir.TensorType(ir.DataType.FLOAT), tokens.shape
    graph = ir.Graph([tokens], [logits], nodes=[node], opset_imports={"": 17}, name="nothing")
    ir.save(ir.Model(graph, ir_version=8), folder / "model.onnx")
    (folder / "genai_config.json").write_text(json.dumps(CONFIG))
