"""A tiny random checkpoint with a tokenizer, its packages, and a text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import drupe

TEXT = "the quick brown fox jumps over the lazy dog; def parse(text): return [word for word in text.split()]\n" * 40


def make_checkpoint(folder: Path, beginning: bool) -> Path:
    """A Llama of some 100,000 parameters, float32. beginning: its tokenizer puts <s> before a text."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=256, eos_token_id=257, pad_token_id=257,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(centre + torch.randn(parameter.shape) * 0.15)
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: at for at, character in enumerate(alphabet)} | {"<s>": 256, "</s>": 257}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    if beginning:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("plain") / "checkpoint", beginning=False)


@pytest.fixture(scope="session")
def checkpoint_with_beginning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("beginning") / "checkpoint", beginning=True)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The package of a checkpoint at a precision, made once."""
    made: dict[tuple[Path, str], Path] = {}

    def make(checkpoint: Path, precision: str) -> Path:
        if (checkpoint, precision) not in made:
            folder = tmp_path_factory.mktemp("package") / precision
            drupe.optimize(checkpoint, folder, precision=precision, verify=False)
            made[checkpoint, precision] = folder
        return made[checkpoint, precision]

    return make


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path
