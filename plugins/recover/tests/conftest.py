"""Fixtures: a context that opens graphs, float graphs of tiny models and of the demo's, and quantized ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from drupe.api import Context, Model, Target


@pytest.fixture(scope="session")
def cpu() -> Target:
    from drupe_ep_cpu.provider import Cpu

    return Cpu().target()


@pytest.fixture
def kit(tmp_path: Path, cpu: Target) -> SimpleNamespace:
    """The helpers of this file; test modules cannot import one another."""

    def context(name: str = "scratch") -> Context:
        from drupe_onnxruntime.plain.runtime import OnnxRuntime

        def opened(model: Model) -> Any:
            return OnnxRuntime().open(model, cpu)

        return Context(cpu, tmp_path / name, threads=1, open=opened)

    def build(checkpoint: Path) -> Model:
        from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig

        return BuildDecoder().run(
            Model("hf", checkpoint), BuildDecoderConfig(weights="float32", all_logits=True), context()
        )

    def demo() -> Model:
        from drupe_demo import MODEL

        return build(Path(MODEL))

    def random(model_type: str = "llama", **settings: Any) -> Model:
        return build(
            tiny.make_checkpoint(tmp_path / f"checkpoint-{len(list(tmp_path.iterdir()))}", model_type, **settings)
        )

    def quantized(model: Model, **settings: Any) -> Model:
        from drupe_quant_rtn.quantize_weights import QuantizeWeights, QuantizeWeightsConfig

        return QuantizeWeights().run(model, QuantizeWeightsConfig(bits=4, **settings), context())

    return SimpleNamespace(context=context, demo=demo, random=random, quantized=quantized)
