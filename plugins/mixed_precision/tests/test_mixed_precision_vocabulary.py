"""A vocabulary in several parts: it gives the same logits as one matrix, and frequent tokens get more bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import make_checkpoint

from drupe.api import Context, Model
from drupe_checkpoints import open_checkpoint
from drupe_ep_cpu.provider import Cpu
from drupe_layerwise import LayerByLayer
from drupe_mixed_precision.allocate_bits import AllocateBits
from drupe_mixed_precision.configuration import AllocateBitsConfig
from drupe_mixed_precision.groups import groups_of
from drupe_mixed_precision.vocabulary import parts_of_vocabulary, split, token_share
from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
from drupe_nbits import EMBEDDING, HEAD, find_sites
from drupe_onnx import ir
from drupe_onnx.stored_weights import stored_weights
from drupe_onnxruntime.plain.runtime import OnnxRuntime


def built(folder: Path, dtype: str = "float32", **settings: Any) -> tuple[Model, Context]:
    checkpoint = make_checkpoint(folder / "checkpoint", "llama", dtype, **settings)
    target = Cpu().target()
    context = Context(target, folder / "scratch", open=lambda model: OnnxRuntime().open(model, target))
    model = Model("hf", checkpoint, payload=open_checkpoint(checkpoint))
    return BuildDecoder().run(model, BuildDecoderConfig(), context), context


def graph(model: Model) -> ir.Graph:
    found: ir.Graph = model.payload.component.graph
    return found


def logits(model: Model, context: Context) -> np.ndarray:
    tokens = [[1, 5, 90, 299, 100, 17, 255], [298, 0, 149, 150, 3, 2, 151]]
    with LayerByLayer(model.payload.component, tokens, context) as layers:
        return np.concatenate([chunk.rows for chunk in layers.logits()])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_vocabulary_in_parts_gives_the_same_logits(tmp_path: Path, tied: bool, dtype: str) -> None:
    model, context = built(tmp_path, dtype, tie_word_embeddings=tied, vocab_size=300)
    before = logits(model, context)
    for group in groups_of(graph(model)):
        if group.roles <= {EMBEDDING, HEAD}:
            users = split(group, [0, 90, 150, 300])
            assert [len(nodes) for nodes in users] == [len(group.sites)] * 3
    parts = [site for site in find_sites(graph(model)) if site.role in (EMBEDDING, HEAD)]
    assert sorted(site.rows.shape[0] for site in parts) == sorted([90, 60, 150] * 2)
    assert len({site.rows for site in parts}) == (3 if tied else 6)
    shown = [line.rows for line in stored_weights(graph(model)) if line.role == EMBEDDING]
    assert shown == ["0-89", "90-149", "150-299"], "the table of a plan says which rows each line is for"
    np.testing.assert_allclose(logits(model, context), before, rtol=1e-5, atol=1e-6)


def test_frequent_tokens_get_more_bits(tmp_path: Path) -> None:
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4}
    model, context = built(tmp_path, tie_word_embeddings=True, vocab_size=4096, **sizes)
    AllocateBits().run(model, AllocateBitsConfig(), context)
    heads = [site for site in find_sites(graph(model)) if site.role == HEAD]
    assert len(heads) > 1
    assert sum(site.rows.shape[0] for site in heads) == 4096
    bits = [site.scheme.bits for site in heads if site.scheme]
    assert bits == sorted(bits, reverse=True)
    assert len(set(bits)) == 2
    for site in find_sites(graph(model)):
        if site.role == EMBEDDING:
            assert site.scheme in [head.scheme for head in heads if head.rows == site.rows]


def test_small_vocabularies_and_matrices_of_blocks_are_not_divided(tmp_path: Path) -> None:
    model, _ = built(tmp_path, vocab_size=512)
    for group in groups_of(graph(model)):
        assert parts_of_vocabulary(group) == [group]


def test_the_assumed_shares_of_frequent_tokens_match_real_text() -> None:
    """The shares were counted on the demo's text, with its tokenizer of 4,096 tokens and another one of 2,048."""
    for tokens, counted in {4096: (0.73, 0.88), 2048: (0.65, 0.84)}.items():
        found = [token_share(tokens // part, tokens) for part in (4, 2)]
        assert found == pytest.approx(counted, abs=0.05)
    assert token_share(0, 100) == 0
    assert token_share(100, 100) == 1
