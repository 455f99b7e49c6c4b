"""The task text-generation: its samples, and its check of a package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import VOCABULARY, make_checkpoint

from drupe.api import Context, Model, ModelError, RuntimeMissing, Session, Target, UsageError
from drupe_decoding import Generation, Message, TextSession
from drupe_onnx import OnnxKind, OnnxPackage
from drupe_text_generation.text_generation import PROMPT, TextGeneration


@pytest.fixture(scope="session")
def target() -> Target:
    from drupe_ep_cpu.provider import Cpu

    return Cpu().target()


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory, target: Target) -> Model:
    """A tiny random decoder's graph."""
    from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig

    home = make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", "llama", "float32")
    return BuildDecoder().run(Model("hf", home), BuildDecoderConfig(), Context(target, home))


def test_a_graph_runs_with_the_samples(decoder: Model, target: Target, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from drupe_onnxruntime.plain.runtime import OnnxRuntime

    OnnxKind().save(decoder, tmp_path, Context(target, tmp_path))
    samples = TextGeneration().samples(decoder, target)
    with OnnxRuntime().open(Model("onnx", tmp_path), target) as session:
        for part in session.parts:
            logits = session.run(samples[part], ["logits"], part)["logits"]
            assert logits.shape[-1] == VOCABULARY
            assert np.isfinite(logits).all()


def test_the_seed_decides_the_tokens(decoder: Model, target: Target) -> None:
    first, same, other = (TextGeneration().samples(decoder, target, seed)["model"] for seed in (1, 1, 2))
    assert first["input_ids"].tolist() == same["input_ids"].tolist() != other["input_ids"].tolist()
    assert first["input_ids"].shape == first["attention_mask"].shape == (1, 8)
    assert first["input_ids"].max() < VOCABULARY


def test_the_sizes_of_samples_are_those_that_are_asked_for(decoder: Model, target: Target) -> None:
    samples = TextGeneration().samples(decoder, target, sizes={"batch": 3, "length": 5})["model"]
    assert samples["input_ids"].shape == samples["attention_mask"].shape == (3, 5)
    assert samples["past_key_values.0.key"].shape[0] == 3
    with pytest.raises(UsageError, match="unknown axis 'lenght' of the model's tokens; did you mean length"):
        TextGeneration().samples(decoder, target, sizes={"lenght": 5})


def test_samples_are_for_decoders_of_one_part(decoder: Model, target: Target, tmp_path: Path) -> None:
    graph = decoder.payload.component
    two = decoder.but(payload=OnnxPackage({"vision": graph, "decoder": graph}))
    with pytest.raises(ModelError, match="2: vision, decoder"):
        TextGeneration().samples(two, target)
    with pytest.raises(ModelError, match="not 'hf'"):
        TextGeneration().samples(Model("hf", tmp_path), target)


class Written(TextSession):
    """A session that writes one word after another and records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Generation]] = []

    def stream(self, prompt: str, generation: Generation | None = None) -> Iterator[str]:
        self.asked.append((prompt, generation or Generation()))
        yield from (" jumps", " over")

    def conversation(self, messages: Sequence[Message], tools: Any = None, **settings: Any) -> str:
        return ""

    def close(self) -> None:
        pass


class Plain(Session):
    def close(self) -> None:
        pass


def test_the_check_generates_a_few_tokens_greedily_and_requires_finite_logits(decoder: Model) -> None:
    session = Written()
    assert TextGeneration().check(session, decoder) == 'continues "The quick brown fox" with " jumps over"'
    assert session.asked == [(PROMPT, Generation(max_new_tokens=8, validate=True))]


def test_a_session_that_generates_no_text_does_not_fail_the_package(decoder: Model) -> None:
    with pytest.raises(RuntimeMissing, match="does not generate text with it"):
        TextGeneration().check(Plain(), decoder)


def test_text_sessions_have_the_methods_that_the_task_offers() -> None:
    assert all(callable(getattr(TextSession, name)) for name in TextGeneration.offers)


def test_naming_the_task_loads_nothing_heavy() -> None:
    code = (
        "import sys, drupe_text_generation.plugin as p; p.drupe_tasks(); "
        "from drupe_text_generation.text_generation import TextGeneration; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "onnx_ir", "drupe_decoding", "drupe_onnx"} & set(loaded)
