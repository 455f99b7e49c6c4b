"""A tiny checkpoint, its graphs, and the target that this machine's processor is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drupe.api import Context, Model, Target

VOCABULARY = 384
TEMPLATE = (
    "{{ bos_token }}{%- for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def tokenizer_file() -> str:
    """A byte-level BPE tokenizer that knows English merges only, and puts <|bos|> before a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([__doc__ or "", TEMPLATE, "def parse(text): return [go for go in text]"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.token_to_id("<|bos|>"))]
    )
    text: str = tokenizer.to_str()
    return text


def random_weights() -> dict[str, np.ndarray]:
    """Large enough for a wrong one to show."""
    rng = np.random.default_rng(7)

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": draw(VOCABULARY, 64),
        "model.norm.weight": 1 + draw(64),
        "lm_head.weight": draw(VOCABULARY, 64),
    }
    for layer in range(2):
        shapes = {
            "self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64),
            "self_attn.o_proj": (64, 64), "mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64),
            "mlp.down_proj": (64, 96),
        }  # fmt: skip
        weights |= {f"model.layers.{layer}.{name}.weight": draw(*shape) for name, shape in shapes.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{norm}.weight"] = 1 + draw(64)
    return weights


def make_checkpoint(folder: Path) -> Path:
    from safetensors.numpy import save_file

    folder.mkdir()
    save_file(random_weights(), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(tokenizer_file(), encoding="utf-8")
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def make_graph(checkpoint: Path, out: Path, target: Target, **config: Any) -> Model:
    """The checkpoint's graph, written to `out`."""
    from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
    from drupe_onnx import write_package

    out.mkdir()
    context = Context(target, out, threads=1)
    built = BuildDecoder().run(Model("hf", checkpoint), BuildDecoderConfig(**config), context)
    write_package(built.payload, out, context)
    return Model("onnx", out)


@pytest.fixture(scope="session")
def cpu() -> Target:
    from drupe_ep_cpu.provider import Cpu

    return Cpu().target()


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers of this file; test modules cannot import one another."""
    return SimpleNamespace(make_graph=make_graph, tokenizer_file=tokenizer_file, template=TEMPLATE)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("random") / "checkpoint")


@pytest.fixture(scope="session")
def graph(checkpoint: Path, cpu: Target) -> Model:
    return make_graph(checkpoint, checkpoint.parent / "graph", cpu)
