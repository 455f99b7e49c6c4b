"""Graphs of tiny checkpoints with lazy weights, the values of the whole graph, and a context that opens graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import VOCABULARY, make_checkpoint

from drupe.api import Context, Model, Target

Sequences = list[list[int]]


@pytest.fixture(scope="session")
def target() -> Target:
    from drupe_ep_cpu.provider import Cpu

    return Cpu().target()


@pytest.fixture
def context(target: Target, tmp_path: Path) -> Context:
    from drupe_onnxruntime.plain.runtime import OnnxRuntime

    return Context(target, tmp_path / "scratch", threads=1, open=lambda model: OnnxRuntime().open(model, target))


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory, target: Target) -> Callable[..., Any]:
    """The decoder's graph of a tiny checkpoint: an ir.Model, a new one each time."""
    from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig

    checkpoints: dict[tuple[str, ...], Path] = {}

    def make(model_type: str, dtype: str = "float32", target: Target = target, **settings: Any) -> Any:
        key = (model_type, dtype, repr(settings))
        if key not in checkpoints:
            home = tmp_path_factory.mktemp("checkpoint")
            checkpoints[key] = make_checkpoint(home / "model", model_type, dtype, **settings)
        home = checkpoints[key]
        config = BuildDecoderConfig(weights=dtype if dtype != "bfloat16" else None)
        return BuildDecoder().run(Model("hf", home), config, Context(target, home)).payload.component

    return make


@pytest.fixture
def whole(context: Context, tmp_path: Path) -> Callable[..., dict[str, NDArray[Any]]]:
    """Values in a graph for one sequence, computed by running the whole graph."""
    from drupe_layerwise.batches import Feeds, batches_of
    from drupe_onnx import OnnxPackage, all_logits, ir, write_package

    def run(model: Any, sequence: list[int], *names: str) -> dict[str, NDArray[Any]]:
        twin = all_logits(model)
        given = {value.name for value in twin.graph.outputs}
        values = ir.convenience.create_value_mapping(twin.graph)
        twin.graph.outputs.extend(values[name] for name in names if name not in given)
        folder = tmp_path / f"whole-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        package = OnnxPackage({"model": twin})
        write_package(package, folder, context)
        (batch,) = batches_of([sequence])
        feeds = {value.name or "": Feeds(package.decoder).feed(value, batch) for value in twin.graph.inputs}
        with context.open(Model("onnx", folder)) as session:
            return {name: np.asarray(array) for name, array in session.run(feeds, list(names)).items()}

    return run


@pytest.fixture
def sequences() -> Sequences:
    """Sequences of three lengths; two neighbours have the same length."""
    random = np.random.default_rng(3)
    return [random.integers(0, VOCABULARY, length).tolist() for length in (7, 7, 12, 1)]


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The helpers of this file; test modules cannot import one another."""

    def joined(chunks: Any, count: int) -> list[NDArray[np.float32]]:
        """The chunks of `logits`, joined for each sequence."""
        rows: list[list[NDArray[np.float32]]] = [[] for _ in range(count)]
        for chunk in chunks:
            assert chunk.start == sum(map(len, rows[chunk.sequence]))
            rows[chunk.sequence].append(chunk.rows)
        return [np.concatenate(each) for each in rows]

    return SimpleNamespace(joined=joined)
