"""A trained model's card: what it is, what it was trained on, how good it is, and under which licence it comes."""

from __future__ import annotations

import platform
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from architectures import Architecture
from corpus import HELD_OUT_MODULES, Corpus
from measure import WINDOW, Quality, sample

SAMPLE_PROMPTS = ("def parse(", "class Node:\n")

_CARD = """\
# {title}

A decoder of {millions:.2f} million parameters that has read the Python standard library. {purpose}

| | |
| --- | --- |
| architecture | `{architecture}`, {layers} layers, hidden {hidden}, intermediate {intermediate}, {heads} heads of \
{head_dim}, {kv_heads} KV heads, {embeddings} |
| parameters | {parameters} (bf16) |
| context | {context} positions declared, trained at sequence lengths 256 and 1024 |
| vocabulary | {vocabulary} byte-level BPE tokens; digits one by one; text is split as Qwen2 splits it |
| training text | standard library of CPython {python}, with its tests and the topics of `help()`: {documents} \
documents, {corpus_bytes} bytes, {corpus_tokens} tokens |
| training | {steps} steps, {seen_tokens} tokens ({epochs:.2f} passes), {minutes:.0f} minutes of wall time on \
{threads} CPU threads |
| training loss | {train_loss:.3f} per token (running mean of the last steps) |

## Held-out quality

Measured on drupe-demo's `heldout.txt`: the modules {held_out}, whole, which are not in the training text
(their tests are). Every token is scored once, in windows of {window} tokens that do not overlap, with the bf16 weights.

| tokens | loss per token | perplexity | bits per byte |
| --- | --- | --- | --- |
| {held_out_tokens} | {loss:.4f} | {perplexity:.3f} | {bits:.4f} |

## Samples

{samples}

## Chat

The tokenizer has a ChatML template (`<|im_start|>`, `<|im_end|>`), so that serving can be tried. The model was not
trained on conversations: it answers with code.

## Licence

The weights and the tokenizer are under the Apache License 2.0, as the project is.

`heldout.txt` is part of the Python standard library, Copyright (c) 2001-2023 Python Software Foundation; All Rights
Reserved, under the PSF License Version 2 (`heldout.LICENSE`). Changes made to it: the modules were put one after the
other in one file.
"""

_SAMPLE = """\
{title}:

```python
{text}
```"""


def write_card(
    path: Path,
    architecture: Architecture,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    corpus_tokens: int,
    progress: dict[str, float],
    quality: Quality,
) -> None:
    """Write the card of the model just trained."""
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = _CARD.format(
        title=architecture.title,
        purpose=architecture.purpose,
        architecture=type(model).__name__,
        embeddings="tied embeddings" if config.tie_word_embeddings else "embedding and head apart",
        millions=parameters / 1e6,
        parameters=parameters,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        context=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        python=platform.python_version(),
        documents=len(corpus.documents),
        corpus_bytes=corpus.n_bytes,
        corpus_tokens=corpus_tokens,
        steps=progress["step"],
        seen_tokens=progress["tokens"],
        epochs=progress["tokens"] / corpus_tokens,
        minutes=progress["seconds"] / 60,
        threads=torch.get_num_threads(),
        train_loss=progress["train_loss"],
        held_out=", ".join(f"`{module}`" for module in HELD_OUT_MODULES),
        window=WINDOW,
        held_out_tokens=quality.n_tokens,
        loss=quality.loss,
        perplexity=quality.perplexity,
        bits=quality.bits_per_byte,
        samples="\n\n".join(_samples(model, tokenizer)),
    )
    path.write_text(card, encoding="utf-8")


def _samples(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    texts = []
    for prompt in SAMPLE_PROMPTS:
        for temperature in (0.0, 0.7):
            title = f"`{prompt.strip()}`, " + ("greedy" if temperature == 0 else f"temperature {temperature}")
            texts.append(_SAMPLE.format(title=title, text=sample(model, tokenizer, prompt, temperature).rstrip()))
    return texts
