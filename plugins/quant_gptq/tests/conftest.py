"""Fixtures: the trained model of `drupe demo` as a lazy graph, contexts that open graphs, a cache for each test."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny

from drupe.api import Context, Model, Progress, Target


@pytest.fixture(scope="session")
def cpu() -> Target:
    from drupe_ep_cpu.provider import Cpu

    return Cpu().target()


@pytest.fixture
def kit(tmp_path: Path, cpu: Target, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The helpers of this file; test modules cannot import one another."""
    monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / "cache"))

    def context(name: str = "scratch", progress: Progress | None = None) -> Context:
        from drupe_onnxruntime.plain.runtime import OnnxRuntime

        def opened(model: Model) -> Any:
            return OnnxRuntime().open(model, cpu)

        return Context(cpu, tmp_path / name, threads=2, progress=progress or Progress(), open=opened)

    def build(checkpoint: Path, **config: Any) -> Model:
        from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig

        settings = {"weights": "float32", "all_logits": True, **config}
        return BuildDecoder().run(Model("hf", checkpoint), BuildDecoderConfig(**settings), context())

    def demo() -> Model:
        from drupe_demo import MODEL

        return build(Path(MODEL))

    def random(model_type: str = "llama", **settings: Any) -> Model:
        folder = tmp_path / f"checkpoint-{len(list(tmp_path.iterdir()))}"
        return build(tiny.make_checkpoint(folder, model_type, **settings))

    def written(model: Model) -> bytes:
        """The bytes of a package's graph and weights."""
        from drupe_onnx import write_package

        folder = tmp_path / f"written-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        write_package(model.payload, folder, context())
        return (folder / "model.onnx").read_bytes() + (folder / "model.onnx.data").read_bytes()

    def logits(model: Model, tokens: list[list[int]]) -> np.ndarray:
        """The logits of each token: [tokens, vocabulary]."""
        from drupe_layerwise import LayerByLayer

        with LayerByLayer(model.payload.component, tokens, context()) as layers:
            return np.concatenate([chunk.rows for chunk in layers.logits()])

    return SimpleNamespace(context=context, build=build, demo=demo, random=random, written=written, logits=logits)
