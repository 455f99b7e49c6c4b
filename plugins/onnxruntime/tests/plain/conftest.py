"""Fixtures: graphs of a tiny checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import TEMPLATE, make_checkpoint, tokenizer_text

from drupe.api import Context, Model, Target


def make_graph(checkpoint: Path, out: Path, target: Target, **config: Any) -> Model:
    """The checkpoint's graph, written to `out`."""
    from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
    from drupe_onnx import write_package

    out.mkdir()
    context = Context(target, out, threads=1)
    built = BuildDecoder().run(Model("hf", checkpoint), BuildDecoderConfig(**config), context)
    write_package(built.payload, out, context)
    return Model("onnx", out)


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers of this file; test modules cannot import one another."""
    return SimpleNamespace(make_graph=make_graph, tokenizer_file=tokenizer_text, template=TEMPLATE)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("random") / "checkpoint", tie_word_embeddings=False)


@pytest.fixture(scope="session")
def graph(checkpoint: Path, cpu: Target) -> Model:
    return make_graph(checkpoint, checkpoint.parent / "graph", cpu)
