"""Tiny random checkpoints of each architecture, and a target with the table of onnxruntime's own kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.api import Capabilities, KernelSupport, Operator, Target

TINY = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def make_checkpoint(folder: Path, model_type: str, dtype: str = "float32", **settings: Any) -> Path:
    """A random model of a few thousand parameters that transformers saved, with a tokenizer file beside it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    config = AutoConfig.for_model(model_type, **{**TINY, **settings})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms and biases too, and all large enough for a wrong one to show.
            centre = 1.0 if parameter.ndim == 1 and float(parameter.mean()) == 1.0 else 0.0
            parameter.copy_(centre + torch.randn(parameter.shape) * 0.15)
    model.tie_weights()
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def edit_config(folder: Path, *removed: str, **changed: Any) -> Path:
    """Change config.json of a checkpoint."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key in removed:
        config.pop(key, None)
    path.write_text(json.dumps({**config, **changed}))
    return folder


def everything(**refused: Any) -> Capabilities:
    """A provider that runs any operator of the graph, in float32, but for what is refused by name: a KernelSupport, or None."""
    types = {
        "com.microsoft::GroupQueryAttention": ("T", "T", "T", "T", "T", "M", "M", "T"),
        "com.microsoft::SkipSimplifiedLayerNormalization": ("T",),
        "SimplifiedLayerNormalization": ("T",),
        "com.microsoft::FusedMatMul": ("T",),
    }
    operators = {}
    for name, inputs in types.items():
        kernel = refused.get(name.rpartition(":")[2], KernelSupport({}))
        if kernel is not None:
            operators[name] = Operator(inputs, ("T",), (kernel,))
    return Capabilities(">=1", operators, ("float32", "float16"))


@pytest.fixture(scope="session")
def cpu() -> Target:
    """onnxruntime's processor kernels, as far as the builder asks: no q/k norm inside attention, no float16 FusedMatMul."""
    gqa = KernelSupport({"T": frozenset(["float32", "float16"])}, refused=(14, 15))
    table = everything(GroupQueryAttention=gqa, FusedMatMul=KernelSupport({"T": frozenset(["float32"])}))
    return Target("cpu", "1.32.0", table)
