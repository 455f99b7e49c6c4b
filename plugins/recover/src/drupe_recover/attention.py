"""Attention and rotary positions in torch, as onnxruntime's GroupQueryAttention computes them for whole sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from drupe_onnx import ir

Tensor: TypeAlias = Any  # of torch, which linters do not see
KNOWN_INPUTS = 9
"""Query, key, value, two caches, two lengths, and two tables of positions; what comes after them is not here."""
SINK = 11
_KNOWN = frozenset(
    {
        "num_heads", "kv_num_heads", "scale", "do_rotary", "rotary_interleaved", "local_window_size", "softcap",
        "smooth_softmax",
    }
)  # fmt: skip


class Unknown(Exception):
    """An operator that is not here, or a form of one: the text says which."""


def grouped_attention(node: ir.Node, values: Sequence[Tensor | None]) -> Sequence[Tensor]:
    """GroupQueryAttention over whole sequences that begin at position 0, without caches: [batch, tokens, features]."""
    further = [place for place, value in enumerate(values) if value is not None and place >= KNOWN_INPUTS]
    unknown = sorted(name for name, each in node.attributes.items() if name not in _KNOWN and each.value)
    if (set(further) - {9, SINK}) or unknown:
        raise Unknown(f"GroupQueryAttention with {unknown[0] if unknown else 'further inputs'}")
    heads, kv_heads = node.attributes["num_heads"].as_int(), node.attributes["kv_num_heads"].as_int()
    query, key, value = _heads_apart(values, heads, kv_heads)
    if _integer(node, "do_rotary"):
        cos, sin = values[7], values[8]
        assert cos is not None and sin is not None
        interleaved = bool(_integer(node, "rotary_interleaved"))
        places = torch.arange(query.shape[2], device=query.device)
        query, key = (_rotate(each, cos[places], sin[places], interleaved) for each in (query, key))
    key, value = (each.repeat_interleave(heads // kv_heads, 1) for each in (key, value))
    scale = _number(node, "scale") or 1 / math.sqrt(query.shape[-1])
    scores = query @ key.transpose(-1, -2) * scale
    if cap := _number(node, "softcap"):
        scores = cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~_seen(scores.shape[-1], _integer(node, "local_window_size", -1), scores.device), -1e30)
    sink = values[SINK] if len(values) > SINK else None
    if sink is not None:
        column = sink.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
        shares = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    elif _integer(node, "smooth_softmax"):
        shares = torch.cat([scores, torch.zeros_like(scores[..., :1])], -1).softmax(-1)[..., :-1]
    else:
        shares = scores.softmax(-1)
    return [(shares @ value).transpose(1, 2).reshape(query.shape[0], query.shape[2], -1)]


def _heads_apart(values: Sequence[Tensor | None], heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value as [batch, heads, tokens, features of a head]; they may come joined in the first input."""
    query, key, value = values[:3]
    assert query is not None
    if key is None or value is None:
        size = query.shape[-1] // (heads + 2 * kv_heads)
        query, key, value = query.split([heads * size, kv_heads * size, kv_heads * size], -1)
    size = query.shape[-1] // heads
    query, key, value = (each.unflatten(-1, (-1, size)).transpose(1, 2) for each in (query, key, value))
    return query, key, value


def _seen(tokens: int, window: int, device: torch.device) -> Tensor:
    """Which tokens each token attends to: those up to itself, and with a window, only the last ones of them."""
    places = torch.arange(tokens, device=device)
    distance = places[:, None] - places[None, :]
    return (distance >= 0) & (distance < (window if window > 0 else tokens))


def rotated(node: ir.Node, x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The operator RotaryEmbedding of [batch, tokens, features] or [batch, heads, tokens, features of a head]."""
    unknown = sorted(
        name for name, each in node.attributes.items() if name not in ("interleaved", "num_heads") and each.value
    )
    if unknown and unknown != ["rotary_embedding_dim"]:
        raise Unknown(f"RotaryEmbedding with {unknown[0]}")
    apart = x.dim() == 4
    heads = _integer(node, "num_heads") or x.shape[-1] // (2 * cos.shape[-1])
    whole = x if apart else x.unflatten(-1, (heads, -1)).transpose(1, 2)
    places = positions.long()
    if places.numel() == 1:
        places = places.reshape(1, 1) + torch.arange(whole.shape[2], device=x.device)
    turned = _rotate(whole, cos[places][:, None], sin[places][:, None], bool(_integer(node, "interleaved")))
    return turned if apart else turned.transpose(1, 2).flatten(-2)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """x [..., tokens, features], of which as many are turned as the tables cos and sin [..., tokens, half] are for."""
    size = 2 * cos.shape[-1]
    first, second = (x[..., 0:size:2], x[..., 1:size:2]) if interleaved else x[..., :size].chunk(2, -1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    joined = torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)
    return torch.cat([joined, x[..., size:]], -1)


def _integer(node: ir.Node, name: str, default: int = 0) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _number(node: ir.Node, name: str) -> float:
    return node.attributes[name].as_float() if name in node.attributes else 0.0
