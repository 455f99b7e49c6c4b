"""Packages give the embeddings that transformers' hidden states and sentence-transformers' formulas give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import drupe

ort = pytest.importorskip("onnxruntime")
WIDTH = 64


def last(hidden: Any, mask: Any) -> Any:
    return hidden[range(len(hidden)), mask.sum(1) - 1]


def mean(hidden: Any, mask: Any) -> Any:
    return (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None]


def cls(hidden: Any, mask: Any) -> Any:
    return hidden[:, 0]


def largest(hidden: Any, mask: Any) -> Any:
    return hidden.masked_fill(mask[..., None] == 0, -np.inf).max(1).values


def by_root(hidden: Any, mask: Any) -> Any:
    return (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None].sqrt()


def by_place(hidden: Any, mask: Any) -> Any:
    places = mask * mask.cumsum(1)
    return (hidden * places[..., None]).sum(1) / places.sum(1)[:, None]


def joined(hidden: Any, mask: Any) -> Any:
    import torch

    return torch.cat([cls(hidden, mask), mean(hidden, mask)], -1)


FLAGGED = {"word_embedding_dimension": WIDTH, "include_prompt": True}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], Callable[[Any, Any], Any]]] = {
    "qwen3-last": ("qwen3", {"head_dim": 32}, {**FLAGGED, "pooling_mode_lasttoken": True}, last),
    "mistral-mean": ("mistral", {"sliding_window": 5}, {"embedding_dimension": WIDTH, "pooling_mode": "mean"}, mean),
    "llama-cls": ("llama", {"attention_bias": True}, {**FLAGGED, "pooling_mode_cls_token": True}, cls),
    "gemma3-mean": (
        "gemma3_text",
        {"head_dim": 16, "sliding_window": 5, "num_hidden_layers": 7},
        {**FLAGGED, "pooling_mode_mean_tokens": True},
        mean,
    ),
    "qwen2-max": ("qwen2", {}, {"pooling_mode": ["max"]}, largest),
    "gpt2-root": (
        "gpt2",
        {"n_embd": WIDTH, "n_layer": 3, "n_head": 4, "n_positions": 256},
        {**FLAGGED, "pooling_mode_mean_sqrt_len_tokens": True},
        by_root,
    ),
    "neox-places": ("gpt_neox", {"rotary_pct": 0.5}, {**FLAGGED, "pooling_mode_weightedmean_tokens": True}, by_place),
    "embeddinggemma": (
        "gemma3_text",
        {"head_dim": 16, "sliding_window": 6, "num_hidden_layers": 7, "use_bidirectional_attention": True},
        {**FLAGGED, "pooling_mode_mean_tokens": True},
        mean,
    ),
    "qwen2-both-ways": ("qwen2", {"is_causal": False}, {"pooling_mode": "lasttoken"}, last),
    "ministral3-both-ways": ("ministral3", {"is_causal": False, "head_dim": 32}, {"pooling_mode": "mean"}, mean),
    "olmo2-joined": (
        "olmo2",
        {"head_dim": 16},
        {**FLAGGED, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        joined,
    ),
}


MODULES = {
    "embeddinggemma": ("Transformer", "Pooling", "Dense", "Dense", "Normalize"),
    "llama-cls": ("Transformer", "Pooling", "Dense", "Normalize"),
    "ministral3-both-ways": ("Transformer", "Pooling"),
}


@pytest.fixture(scope="module")
def packaged(kit: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[tuple[str, str], tuple[Path, Path]] = {}

    def package(name: str, precision: str = "fp32", **options: Any) -> tuple[Path, Path]:
        if (name, precision) not in made:
            folder = tmp_path_factory.mktemp(name)
            family, settings, pooling, _ = CASES[name]
            source = kit.make_embedder(
                folder / "source", family, pooling, modules=MODULES.get(name, kit.MODULES), **settings
            )
            drupe.optimize(str(source), folder / precision, precision=precision, **options)
            made[name, precision] = (source, folder / precision)
        return made[name, precision]

    return package


@pytest.mark.parametrize("name", CASES)
def test_a_float_package_gives_the_embeddings_of_transformers(name: str, kit: SimpleNamespace, packaged: Any) -> None:
    source, package = packaged(name)
    want = kit.expected(source, kit.TEXTS, CASES[name][3], normalized="Normalize" in MODULES.get(name, kit.MODULES))
    session = ort.InferenceSession(str(package / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [each.name for each in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    for side in ("right", "left"):
        ids, mask = on_side(want.ids, want.mask, side)
        hidden, embedding = session.run(None, {"input_ids": ids, "attention_mask": mask})
        assert kit.difference(embedding, want.pooled) < 1e-4, side
        assert kit.difference(hidden[mask == 1], want.hidden[want.mask == 1]) < 1e-4, side
    for row, tokens in enumerate(want.mask.sum(1)):  # each text alone
        ids = want.ids[row : row + 1, :tokens]
        (embedding,) = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        assert kit.difference(embedding, want.pooled[row : row + 1]) < 1e-4
    with drupe.open(package) as opened:
        assert kit.difference(opened.embed(kit.TEXTS), want.pooled) < 1e-4


def on_side(ids: Any, mask: Any, side: str) -> tuple[Any, Any]:
    """The batch with its padding on one side."""
    if side == "right":
        return ids, mask
    places = np.stack([np.roll(np.arange(len(row)), len(row) - row.sum()) for row in mask])
    return np.take_along_axis(ids, places, 1), np.take_along_axis(mask, places, 1)
