"""Tiny random embedding models in folders as sentence-transformers writes them, and what transformers makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny

TEXTS = [
    "def parse(text): return [go for go in text]",
    "A tiny random checkpoint.",
    "x",
    "Every test can import this module, and the tokenizer puts a token before a text and another one behind it.",
]
PROMPTS = {"query": "Find what answers this: ", "document": ""}
LAYERS = "sentence_transformers.models."
MODULES = ("Transformer", "Pooling", "Normalize")
LAYERS_AFTER = (
    {"inputs": 64, "outputs": 96, "activation": "torch.nn.modules.activation.Tanh", "bias": True},
    {"inputs": 96, "outputs": 40, "activation": "torch.nn.modules.linear.Identity", "bias": False},
)
"""The modules Dense, in order."""


def make_embedder(
    folder: Path,
    model_type: str = "qwen3",
    pooling: Mapping[str, Any] | None = None,
    *,
    modules: Sequence[str] = MODULES,
    appends: bool = True,
    **settings: Any,
) -> Path:
    """A random model without a head, every tensor random, as transformers saves it; with a tokenizer.

    pooling: the content of 1_Pooling/config.json; None for a folder without files of sentence-transformers.
    appends: whether the tokenizer puts <|end|> behind a text.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(11)
    model = AutoModel.from_config(AutoConfig.for_model(model_type, **{**tiny.TINY, **settings}))
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 1.0 if parameter.ndim == 1 and float(parameter.mean()) == 1.0 else 0.0
            parameter.copy_(centre + torch.randn(parameter.shape) * 0.15)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.copy_(1.0 + torch.randn(buffer.shape) * 0.15)
    model.save_pretrained(folder)
    tiny.write_tokenizer(folder)
    if appends:
        append_end(folder)
    if pooling is not None:
        write_modules(folder, pooling, modules)
    return folder


def append_end(folder: Path) -> None:
    """Let the tokenizer put <|end|> behind a text."""
    from tokenizers import Tokenizer, processors

    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    begin, end = tiny.SPECIAL[tiny.BOS], tiny.SPECIAL[tiny.END]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, tiny.BOS), (end, tiny.END)]
    )
    tokenizer.save(str(path))


def write_modules(folder: Path, pooling: Mapping[str, Any], modules: Sequence[str] = MODULES) -> None:
    """The files of sentence-transformers."""
    listed = [
        {"idx": at, "name": str(at), "path": f"{at}_{kind}" if at else "", "type": f"{LAYERS}{kind}"}
        for at, kind in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    said, layers = {"Pooling": pooling}, iter(LAYERS_AFTER)
    for each, kind in zip(listed[1:], modules[1:], strict=True):
        (folder / each["path"]).mkdir(exist_ok=True)
        content = write_dense(folder / each["path"], **next(layers)) if kind == "Dense" else said.get(kind, {})
        (folder / each["path"] / "config.json").write_text(json.dumps(content))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": PROMPTS, "default_prompt_name": None, "similarity_fn_name": "cosine"})
    )
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 200, "do_lower_case": False}))


def write_dense(folder: Path, inputs: int, outputs: int, activation: str, bias: bool) -> dict[str, Any]:
    """The weights of a Dense, every one random. Returns its config.json."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(outputs)
    tensors = {"linear.weight": torch.randn(outputs, inputs) * inputs**-0.5}
    if bias:
        tensors["linear.bias"] = torch.randn(outputs) * 0.3
    save_file(tensors, folder / "model.safetensors")
    return {"in_features": inputs, "out_features": outputs, "bias": bias, "activation_function": activation}


def through_layers(folder: Path, embedding: Any) -> Any:
    """What the Dense modules of a folder make of embeddings [texts, values], in torch."""
    import torch
    from safetensors.torch import load_file

    for path in sorted(folder.glob("*_Dense")):
        tensors, said = load_file(path / "model.safetensors"), json.loads((path / "config.json").read_text())
        embedding = torch.nn.functional.linear(embedding, tensors["linear.weight"], tensors.get("linear.bias"))
        embedding = getattr(torch.nn, said["activation_function"].rpartition(".")[2])()(embedding)
    return embedding


def expected(folder: Path, texts: Sequence[str], pool: Callable[[Any, Any], Any], *, normalized: bool) -> Any:
    """transformers' last hidden states of a padded batch, and sentence-transformers' formula on them."""
    import torch
    from transformers import AutoModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token=tiny.SPECIAL[tiny.END])
    given = tokenizer(list(texts), padding=True, return_tensors="pt")
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        hidden = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
        found = through_layers(folder, pool(hidden, given["attention_mask"]))
        found = torch.nn.functional.normalize(found, dim=-1) if normalized else found
    return SimpleNamespace(
        ids=given["input_ids"].numpy(),
        mask=given["attention_mask"].numpy(),
        hidden=hidden.numpy(),
        pooled=found.numpy(),
    )


def difference(one: Any, other: Any) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(one - other).max() / np.abs(other).max())


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    return SimpleNamespace(
        TEXTS=TEXTS,
        MODULES=MODULES,
        PROMPTS=PROMPTS,
        append_end=append_end,
        difference=difference,
        expected=expected,
        make_embedder=make_embedder,
        through_layers=through_layers,
        write_dense=write_dense,
        write_modules=write_modules,
    )
