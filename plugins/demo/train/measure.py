"""How well the demo model predicts the held-out text, and what it writes by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerFast

WINDOW = 512


@dataclass(frozen=True)
class Quality:
    """The held-out text's cross-entropy, in three units."""

    n_tokens: int
    loss: float
    perplexity: float
    bits_per_byte: float


def held_out_quality(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str) -> Quality:
    """Score every token of `text` once, in windows of 512 tokens that do not overlap."""
    ids = [tokenizer.bos_token_id, *tokenizer(text, verbose=False)["input_ids"]]
    total = sum(_window_loss(model, ids[start : start + WINDOW + 1]) for start in range(0, len(ids) - 1, WINDOW))
    n_tokens = len(ids) - 1
    loss = total / n_tokens
    return Quality(n_tokens, loss, math.exp(loss), total / math.log(2) / len(text.encode()))


@torch.inference_mode()
def _window_loss(model: PreTrainedModel, ids: list[int]) -> float:
    row = torch.tensor([ids])
    logits = model(input_ids=row[:, :-1], use_cache=False).logits
    return float(F.cross_entropy(logits[0].float(), row[0, 1:], reduction="sum"))


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    temperature: float = 0.0,
    n_tokens: int = 120,
    seed: int = 0,
) -> str:
    """The prompt and what the model writes after it; temperature 0 takes the likeliest token every time."""
    torch.manual_seed(seed)
    encoded = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    choice = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    output = model.generate(**encoded, max_new_tokens=n_tokens, **choice)
    return str(tokenizer.decode(output[0], skip_special_tokens=True))
