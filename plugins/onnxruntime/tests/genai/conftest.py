"""Fixtures: tiny checkpoints and their packages."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import TEMPLATE, VOCABULARY, tokenizer_text

from drupe.api import Context, Model, Target

TINY = {
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


def random_weights(config: Mapping[str, Any], seed: int = 7) -> dict[str, np.ndarray]:
    """Random weights, large enough that a wrong one changes the output."""
    rng = np.random.default_rng(seed)
    hidden, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    query, key = config["num_attention_heads"] * size, config["num_key_value_heads"] * size

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": draw(config["vocab_size"], hidden),
        "model.norm.weight": 1 + draw(hidden),
        "lm_head.weight": draw(config["vocab_size"], hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        weights |= {
            f"{name}.input_layernorm.weight": 1 + draw(hidden),
            f"{name}.post_attention_layernorm.weight": 1 + draw(hidden),
            f"{name}.self_attn.q_proj.weight": draw(query, hidden),
            f"{name}.self_attn.k_proj.weight": draw(key, hidden),
            f"{name}.self_attn.v_proj.weight": draw(key, hidden),
            f"{name}.self_attn.o_proj.weight": draw(hidden, query),
            f"{name}.mlp.gate_proj.weight": draw(inner, hidden),
            f"{name}.mlp.up_proj.weight": draw(inner, hidden),
            f"{name}.mlp.down_proj.weight": draw(hidden, inner),
        }
        if config["model_type"] == "qwen3":
            weights |= {f"{name}.self_attn.{part}_norm.weight": 1 + draw(size) for part in "qk"}
    return weights


def write_text_only(weights: dict[str, np.ndarray], tokenizer_json: str) -> None:
    """Keep the model from tokens that are special, none, or part of a character: runtimes show those differently."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_json)
    for token in range(VOCABULARY):
        text = tokenizer.decode([token])
        if not text or "\ufffd" in text:
            weights["lm_head.weight"][token] = 0


def follow_script(weights: dict[str, np.ndarray], script: Sequence[int]) -> None:
    """Make the model answer each token of the script with the next one, by its head alone.

    No token may occur twice.
    """
    assert len(set(script)) == len(script)
    for name in weights:
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weights[name][:] = 0
    weights["model.norm.weight"][:] = 1
    embedding, head = weights["model.embed_tokens.weight"], weights["lm_head.weight"]
    head *= 0.01
    for token, following in itertools.pairwise(script):
        head[following] = embedding[token] / np.linalg.norm(embedding[token])


def make_checkpoint(
    folder: Path,
    model_type: str = "llama",
    script: Sequence[int] = (),
    edit: Callable[[dict[str, np.ndarray]], None] | None = None,
    template: str | None = TEMPLATE,
    **settings: Any,
) -> Path:
    from safetensors.numpy import save_file

    folder.mkdir()
    name = {"llama": "Llama", "qwen3": "Qwen3", "mistral": "Mistral"}[model_type]
    config = {**TINY, "model_type": model_type, "architectures": [f"{name}ForCausalLM"], **settings}
    tokenizer_json = tokenizer_text()
    weights = random_weights(config)
    write_text_only(weights, tokenizer_json)
    if script:
        follow_script(weights, script)
    if edit:
        edit(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    tokens = {"tokenizer_class": "TokenizersBackend", "bos_token": "<|bos|>", "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def make_package(checkpoint: Path, out: Path, target: Target, all_logits: bool = False, **config: Any) -> Model:
    """The package that the passes make from a checkpoint, written to `out`."""
    from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
    from drupe_onnx import write_package
    from drupe_onnxruntime.genai.package_genai import PackageGenai, PackageGenaiConfig

    out.mkdir()
    context = Context(target, out, threads=1)
    built = BuildDecoder().run(Model("hf", checkpoint), BuildDecoderConfig(all_logits=all_logits), context)
    packaged = PackageGenai().run(built, PackageGenaiConfig(**config), context)
    write_package(packaged.payload, out, context)
    return Model("onnx", out)


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers of this file; test modules cannot import one another."""
    return SimpleNamespace(make_checkpoint=make_checkpoint, make_package=make_package, tokenizer_file=tokenizer_text)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("random") / "checkpoint")


@pytest.fixture(scope="session")
def package(checkpoint: Path, cpu: Target) -> Model:
    return make_package(checkpoint, checkpoint.parent / "package", cpu)
