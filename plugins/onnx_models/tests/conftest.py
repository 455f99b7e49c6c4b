"""Fixtures: graphs of several exporters, each made once, and helpers that run them."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import make_checkpoint, write_tokenizer

from drupe.api import CheckFailed, Context, Model, Session, Target, registry
from drupe_onnx import OnnxKind, write_package

PROMPT = [5, 3, 8, 100, 7]
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}


class Plain(Session):
    """A graph in onnxruntime, with inputs and outputs by name."""

    def __init__(self, model: Model) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        path = model.location if model.location.is_file() else model.location / "model.onnx"
        self.opened = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None, part: str = "model") -> Any:
        names = outputs or [each.name for each in self.opened.get_outputs()]
        try:
            return dict(zip(names, self.opened.run(list(names), dict(inputs)), strict=True))
        except Exception as error:
            raise CheckFailed(f"onnxruntime cannot run the model: {error}") from error

    def close(self) -> None:
        del self.opened


def logits(graph: Path, tokens: Sequence[int] = PROMPT, head_size: int = 16) -> NDArray[np.float32]:
    """The logits of a prompt and of two further tokens, with caches between the steps: [tokens, vocabulary]."""
    session = Plain(Model("onnx", graph)).opened
    inputs = {each.name: each for each in session.get_inputs()}
    past = {
        name: np.zeros((1, each.shape[1], 0, head_size), TYPES[each.type])
        for name, each in inputs.items()
        if name.startswith("past")
    }
    rows, length = [], 0
    for step in (list(tokens), [9], [11]):
        length += len(step)
        feeds = {
            "input_ids": np.array([step]),
            "attention_mask": np.ones((1, length), np.int64),
            "position_ids": np.arange(length - len(step), length)[None],
        }
        names = [each.name for each in session.get_outputs()]
        given = {name: array for name, array in feeds.items() if name in inputs}
        results = dict(zip(names, session.run(names, {**given, **past}), strict=True))
        past = {name: results[name.replace("past_key_values", "present")] for name in past}
        rows.append(results["logits"][0].astype(np.float32))
    return np.concatenate(rows)


@pytest.fixture(scope="session")
def cpu() -> Target:
    return registry().provider("cpu").target()


@pytest.fixture
def context(tmp_path: Path, cpu: Target) -> Context:
    return Context(cpu, tmp_path / "scratch", threads=1, open=Plain)


@pytest.fixture
def adopt(context: Context) -> Callable[..., Model]:
    """Runs the pass `adopt-graph` on the model that a reference names."""

    def run(reference: Path, **config: Any) -> Model:
        from drupe_onnx_models.adopt_graph import AdoptGraph, AdoptGraphConfig
        from drupe_onnx_models.resolving import resolve

        model, kind = resolve(str(reference)), OnnxKind()
        assert model is not None
        return AdoptGraph().run(kind.fork(kind.load(model)), AdoptGraphConfig(**config), context)

    return run


@pytest.fixture
def written(adopt: Callable[..., Model], context: Context, tmp_path: Path) -> Callable[..., Path]:
    """Adopts a graph and writes it; returns the path of the new graph."""

    def run(reference: Path, **config: Any) -> Path:
        out = tmp_path / f"written-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        write_package(adopt(reference, **config).payload, out, context)
        return out / "model.onnx"

    return run


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers of this file; test modules cannot import one another."""
    return SimpleNamespace(Plain=Plain, logits=logits)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a decoder of one of the exporters, a tokenizer and a configuration, made once."""
    folders: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in folders:
            folders[name] = MAKERS[name](tmp_path_factory.mktemp(name))
        return folders[name]

    return find


def by_torch(folder: Path, **options: Any) -> Path:
    """A graph like optimum's: unfused attention, caches joined by Concat, no types of inner values."""
    from torch_graphs import export_decoder, write_config

    export_decoder(folder / "model.onnx", **options)
    write_config(folder)
    write_tokenizer(folder)
    return folder


def in_half(folder: Path) -> Path:
    import torch

    return by_torch(folder, dtype=torch.float16)


def by_genai(folder: Path, precision: str, provider: str = "cpu", last: bool = False, **settings: Any) -> Path:
    """Made by onnxruntime-genai's model builder in this process, because starting it takes longer than building."""
    checkpoint = make_checkpoint(folder / "checkpoint", **settings)
    command = ["builder", "-i", checkpoint, "-o", folder / "graph", "-p", precision, "-e", provider]
    command += ["-c", folder / "cache", *(["--extra_options", "prune_lm_head=true"] if last else [])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(map(str, command)))
        runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
    return folder / "graph"


MAKERS: dict[str, Callable[[Path], Path]] = {
    "torch": by_torch,
    "torch-tied": lambda folder: by_torch(folder, tied=True),
    "torch-last": lambda folder: by_torch(folder, last=True),
    "torch-half": in_half,
    "genai-fp32": lambda folder: by_genai(folder, "fp32"),
    "genai-last": lambda folder: by_genai(folder, "fp32", last=True),
    "genai-half": lambda folder: by_genai(folder, "fp16", "cuda"),
    "genai-int4": lambda folder: by_genai(folder, "int4"),
    "genai-int4-half": lambda folder: by_genai(folder, "int4", "cuda"),
    "genai-int4-tied": lambda folder: by_genai(
        folder, "int4", model_type="qwen3", head_dim=32, tie_word_embeddings=True
    ),
    "genai-norms-inside": lambda folder: by_genai(folder, "fp16", "cuda", model_type="qwen3", head_dim=32),
}
