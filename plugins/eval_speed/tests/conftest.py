"""Packages of tiny models, each made once: a decoder's, an embedding model's, and a graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import make_checkpoint

import drupe

MODULES = '[{"path": "", "type": "models.Transformer"}, {"path": "1_Pooling", "type": "models.Pooling"}]'


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The package of a decoder with room for 256 tokens, at a precision."""
    home = tmp_path_factory.mktemp("packages")
    checkpoint = make_checkpoint(home / "checkpoint")

    def package(precision: str) -> Path:
        out = home / precision
        if not out.exists():
            drupe.optimize(checkpoint, out, precision=precision, quality="fast" if precision == "int4" else None,
                           verify=False, provider="cpu")  # fmt: skip
        return out

    return package


@pytest.fixture(scope="session")
def package(packages: Callable[[str], Path]) -> Path:
    return packages("int4")


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of the task feature-extraction, with a context of 256 tokens."""
    home = tmp_path_factory.mktemp("embedder")
    checkpoint = make_checkpoint(home / "checkpoint", "qwen2", tie_word_embeddings=True)
    (checkpoint / "modules.json").write_text(MODULES)
    (checkpoint / "1_Pooling").mkdir()
    (checkpoint / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    drupe.optimize(checkpoint, home / "out", precision="fp32", verify=False, provider="cpu")
    return home / "out"


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of images: pixels [batch, 3, height, width]."""
    from onnx import TensorProto, helper, save

    shapes = {"pixels": ["batch", 3, "height", "width"], "half": ["batch", 3, "h", "w"]}
    ports = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    node = helper.make_node("AveragePool", ["pixels"], ["half"], kernel_shape=[2, 2], strides=[2, 2])
    made = helper.make_graph([node], "images", [ports["pixels"]], [ports["half"]])
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path
