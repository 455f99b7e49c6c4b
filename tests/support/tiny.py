"""Tiny random checkpoints with a tokenizer, for tests to convert. Every test can import this module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VOCABULARY = 512
SPECIAL = ("<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
BOS, END = 0, 1
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TINY: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": BOS,
    "eos_token_id": END,
}


def make_checkpoint(folder: Path, model_type: str = "llama", dtype: str = "float32", **settings: Any) -> Path:
    """A random model of some 100,000 parameters as transformers saves it, with tokenizer and chat template."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**TINY, **settings}))
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms and biases are random too, and all values are large enough that a wrong one changes the output.
            centre = 1.0 if parameter.ndim == 1 and float(parameter.mean()) == 1.0 else 0.0
            parameter.copy_(centre + torch.randn(parameter.shape) * 0.15)
    model.tie_weights()
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE tokenizer with English merges only. It puts <|bos|> before a text."""
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[BOS], "eos_token": SPECIAL[END]}
    (folder / "tokenizer.json").write_text(tokenizer_text(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    (folder / "chat_template.jinja").write_text(TEMPLATE)


def tokenizer_text() -> str:
    """The text of tokenizer.json."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([__doc__ or "", TEMPLATE, "def parse(text): return [go for go in text]"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[BOS]} $A", special_tokens=[(SPECIAL[BOS], BOS)]
    )
    text: str = tokenizer.to_str()
    return text


def edit_config(folder: Path, *removed: str, **changed: Any) -> Path:
    """Change config.json of a checkpoint."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key in removed:
        config.pop(key, None)
    path.write_text(json.dumps({**config, **changed}))
    return folder
