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


def make_embedder(
    folder: Path,
    model_type: str = "qwen3",
    pooling: Mapping[str, Any] | None = None,
    *,
    modules: Sequence[str] = ("Transformer", "Pooling", "Normalize"),
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


def write_modules(
    folder: Path, pooling: Mapping[str, Any], modules: Sequence[str] = ("Transformer", "Pooling", "Normalize")
) -> None:
    """The files of sentence-transformers."""
    listed = [
        {"idx": at, "name": str(at), "path": f"{at}_{kind}" if at else "", "type": f"{LAYERS}{kind}"}
        for at, kind in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    for each in listed[1:]:
        (folder / each["path"]).mkdir(exist_ok=True)
        (folder / each["path"] / "config.json").write_text(json.dumps(pooling if "Pooling" in each["path"] else {}))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": PROMPTS, "default_prompt_name": None, "similarity_fn_name": "cosine"})
    )
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 200, "do_lower_case": False}))


def expected(folder: Path, texts: Sequence[str], pool: Callable[[Any, Any], Any], *, normalized: bool) -> Any:
    """transformers' last hidden states of a padded batch, and sentence-transformers' formula on them."""
    import torch
    from transformers import AutoModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token=tiny.SPECIAL[tiny.END])
    given = tokenizer(list(texts), padding=True, return_tensors="pt")
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        hidden = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
        found = pool(hidden, given["attention_mask"])
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
        PROMPTS=PROMPTS,
        append_end=append_end,
        difference=difference,
        expected=expected,
        make_embedder=make_embedder,
        write_modules=write_modules,
    )
