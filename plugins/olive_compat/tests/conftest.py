"""A small decoder, as a checkpoint and as an ONNX graph."""

from __future__ import annotations

from pathlib import Path

import pytest

import drupe


@pytest.fixture(scope="session")
def decoder() -> Path:
    from drupe_demo import MODEL

    return Path(MODEL)


@pytest.fixture(scope="session")
def graph(decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoder as a graph of float32, without the record that makes it a package of Drupe."""
    folder = tmp_path_factory.mktemp("graph") / "decoder"
    drupe.optimize(str(decoder), output=folder, precision="fp32", provider="cpu", verify=False)
    (folder / "drupe.json").unlink()
    return folder / "model.onnx"
