"""Graphs from torch's exporter, which optimum uses: unfused, with types of inputs and outputs only."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY, HIDDEN, WIDE, LAYERS, HEADS, KV_HEADS, SIZE = 512, 64, 96, 2, 4, 2, 16


class Norm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * wide.to(x.dtype)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(HIDDEN, HEADS * SIZE, bias=False)
        self.k_proj = nn.Linear(HIDDEN, KV_HEADS * SIZE, bias=False)
        self.v_proj = nn.Linear(HIDDEN, KV_HEADS * SIZE, bias=False)
        self.o_proj = nn.Linear(HEADS * SIZE, HIDDEN, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, past: tuple[Tensor, Tensor]) -> Any:
        rows, length, _ = x.shape
        query, key, value = (
            each.view(rows, length, -1, SIZE).transpose(1, 2)
            for each in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        query, key = rotated(query, cos, sin), rotated(key, cos, sin)
        key, value = torch.cat([past[0], key], dim=-2), torch.cat([past[1], value], dim=-2)
        keys, values = (each.repeat_interleave(HEADS // KV_HEADS, dim=1) for each in (key, value))
        scores = query @ keys.transpose(-1, -2) * SIZE**-0.5 + mask
        out = torch.softmax(scores, dim=-1, dtype=torch.float32).to(x.dtype) @ values
        return self.o_proj(out.transpose(1, 2).reshape(rows, length, HEADS * SIZE)), (key, value)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(HIDDEN), Norm(HIDDEN)
        self.self_attn = Attention()
        self.gate_proj, self.up_proj = (nn.Linear(HIDDEN, WIDE, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(WIDE, HIDDEN, bias=False)

    def forward(self, x: Tensor, *others: Any) -> Any:
        attended, present = self.self_attn(self.input_layernorm(x), *others)
        x = x + attended
        normed = self.post_attention_layernorm(x)
        return x + self.down_proj(nn.functional.silu(self.gate_proj(normed)) * self.up_proj(normed)), present


class Decoder(nn.Module):
    """A llama in torch. tied: the head is the embedding. last: the output has the last token's logits only."""

    def __init__(self, *, tied: bool = False, last: bool = False) -> None:
        super().__init__()
        self.last = last
        self.embed_tokens = nn.Embedding(VOCABULARY, HIDDEN)
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = Norm(HIDDEN)
        self.lm_head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.15)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, *pasts: Tensor) -> Any:
        x = self.embed_tokens(input_ids)
        length, total = input_ids.shape[1], attention_mask.shape[1]
        frequencies = 10000.0 ** (-torch.arange(0, SIZE, 2, dtype=torch.float32) / SIZE)
        angles = position_ids[..., None].to(torch.float32) * frequencies
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        places = torch.arange(total)[None] <= torch.arange(total)[:, None]
        seen = places[total - length :][None, None] & attention_mask[:, None, None].bool()
        mask = torch.zeros(seen.shape, dtype=x.dtype).masked_fill(~seen, torch.finfo(x.dtype).min)
        presents = []
        for number, layer in enumerate(self.layers):
            past = (pasts[2 * number], pasts[2 * number + 1])
            x, present = layer(x, angles.cos().to(x.dtype), angles.sin().to(x.dtype), mask, past)
            presents += present
        x = self.norm(x)
        return self.lm_head(x[:, -1:] if self.last else x), *presents


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


def export_decoder(path: Path, *, dtype: torch.dtype = torch.float32, **options: bool) -> Path:
    """Export a decoder like optimum, with the same names and symbolic sizes."""
    torch.manual_seed(7)
    model = Decoder(**options).eval().to(dtype)
    pasts = [torch.randn(2, KV_HEADS, 3, SIZE, dtype=dtype) for _ in range(2 * LAYERS)]
    names = [f"{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]
    ids, mask, positions = torch.randint(0, VOCABULARY, (2, 4)), torch.ones(2, 7, dtype=torch.int64), torch.arange(3, 7)
    axes = {
        "input_ids": {0: "batch_size", 1: "sequence_length"},
        "position_ids": {0: "batch_size", 1: "sequence_length"},
    }
    axes |= {"attention_mask": {0: "batch_size", 1: "past_sequence_length + sequence_length"}}
    axes |= {"logits": {0: "batch_size"} if options.get("last") else {0: "batch_size", 1: "sequence_length"}}
    axes |= {f"past_key_values.{name}": {0: "batch_size", 2: "past_sequence_length"} for name in names}
    axes |= {f"present.{name}": {0: "batch_size", 2: "past_sequence_length + sequence_length"} for name in names}
    export(
        model,
        (ids, mask, positions.expand(2, 4), *pasts),
        path,
        ["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{name}" for name in names)],
        ["logits", *(f"present.{name}" for name in names)],
        axes,
    )
    return path


def write_config(folder: Path) -> None:
    """Write the config.json that transformers would write for such a decoder."""
    config = {
        "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "vocab_size": VOCABULARY, "max_position_embeddings": 256, "bos_token_id": 0,
        "eos_token_id": 1,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


class Classifier(nn.Module):
    """A classifier of tokens: an embedding and two products. Its vocabulary is large enough to be divided."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(4096, HIDDEN), nn.LayerNorm(HIDDEN)
        self.wide, self.narrow = nn.Linear(HIDDEN, WIDE), nn.Linear(WIDE, 10)

    def forward(self, tokens: Tensor, mask: Tensor) -> Any:
        x = self.norm(self.embedding(tokens)) * mask[..., None]
        return self.narrow(nn.functional.gelu(self.wide(x)).mean(1))


def export_classifier(path: Path, opset: int = 18) -> Path:
    """Export a classifier."""
    torch.manual_seed(7)
    inputs = torch.randint(0, 4096, (2, 5)), torch.ones(2, 5)
    axes = {name: {0: "batch", 1: "length"} for name in ("tokens", "mask")} | {"scores": {0: "batch"}}
    return export(Classifier().eval(), inputs, path, ["tokens", "mask"], ["scores"], axes, opset)


def export(
    model: nn.Module,
    inputs: tuple[Any, ...],
    path: Path,
    names: list[str],
    outputs: list[str],
    axes: dict[str, Any],
    opset: int = 18,
) -> Path:
    """Export by tracing, like optimum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a newer exporter; optimum uses this one
        _export(model, inputs, path, names, outputs, axes, opset)
    return path


def _export(*arguments: Any) -> None:
    model, inputs, path, names, outputs, axes, opset = arguments
    torch.onnx.export(
        model, inputs, str(path), input_names=names, output_names=outputs, dynamic_axes=axes, dynamo=False,
        opset_version=opset,
    )  # fmt: skip
