"""Fixtures: tiny decoders as lazy graphs, and their logits in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
from plain_decoders import decoder_feed

from drupe.api import Context, Model, Target

PROMPT = [5, 71, 33, 90, 12, 12, 48, 7, 66, 23, 81]


def build(folder: Path, target: Target, **config: Any) -> Model:
    """The lazy graph of a checkpoint, in float32, with the logits of every token."""
    from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig

    settings = {"weights": "float32", "activations": "float32", "all_logits": True, **config}
    return BuildDecoder().run(Model("hf", folder), BuildDecoderConfig(**settings), Context(target, folder))


def logits(model: Model, target: Target, folder: Path) -> np.ndarray:
    """Logits [tokens, vocabulary] of the written package for PROMPT."""
    import onnxruntime

    from drupe_onnx import write_package

    folder.mkdir(parents=True)
    write_package(model.payload, folder, Context(target, folder, threads=2))
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(["logits"], decoder_feed(session, PROMPT))[0][0]


@pytest.fixture(scope="session")
def cpu() -> Target:
    from drupe_ep_cpu.provider import Cpu

    return Cpu().target()


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The helpers of this file; test modules cannot import one another. Checkpoints are made once."""
    made: dict[str, Path] = {}

    def checkpoint(model_type: str, **settings: Any) -> Path:
        key = f"{model_type}{sorted(settings.items())}"
        if key not in made:
            made[key] = tiny.make_checkpoint(tmp_path_factory.mktemp("made") / "checkpoint", model_type, **settings)
        return made[key]

    return SimpleNamespace(checkpoint=checkpoint, build=build, logits=logits)


@pytest.fixture
def context(cpu: Target, tmp_path: Path) -> Context:
    from drupe_onnxruntime.plain.runtime import OnnxRuntime

    return Context(cpu, tmp_path / "scratch", threads=2, open=lambda model: OnnxRuntime().open(model, cpu))
