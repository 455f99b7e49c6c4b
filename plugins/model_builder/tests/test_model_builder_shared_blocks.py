"""Blocks that several layers share: their matrices are there once, and copies in a checkpoint take no part."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decoder_families
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file, save_file

import drupe
from drupe.api import Target, registry, target_of

SHARED = ".shared_transformer."
ADAPTERS = (".inward", ".outward")


@pytest.fixture(scope="module")
def processor() -> Target:
    """onnxruntime's processor, with the table of the installed version."""
    found = registry()
    return target_of(found.provider("cpu"), found)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers 1, 3 and 4 share a block."""
    return decoder_families.make("zamba2, one block", tmp_path_factory.mktemp("zamba2"))[0]


def layers_with_matrices(package: Path) -> set[str]:
    """The layers in whose names the package holds matrices of shared blocks; adapters are each layer's own."""
    names = [name for name in ir.load(package / "model.onnx").graph.initializers if SHARED in name]
    return {name.partition(SHARED)[0] for name in names if not any(each in name for each in ADAPTERS)}


def test_matrices_of_a_shared_block_are_in_the_graph_once(
    checkpoint: Path, kit: SimpleNamespace, processor: Target, tmp_path: Path
) -> None:
    kit.build(checkpoint, processor, tmp_path / "out", weights="float32")
    assert layers_with_matrices(tmp_path / "out") == {"model.layers.1"}


@pytest.mark.parametrize("quality", ["fast", "balanced"])
def test_quantized_matrices_of_a_shared_block_are_in_the_package_once(
    quality: Any, checkpoint: Path, tmp_path: Path
) -> None:
    drupe.optimize(checkpoint, tmp_path / "out", quality=quality, verify=False)
    assert layers_with_matrices(tmp_path / "out") == {"model.layers.1"}


def test_copies_of_a_shared_block_take_no_part(
    checkpoint: Path, kit: SimpleNamespace, processor: Target, tmp_path: Path
) -> None:
    expected = (kit.build(checkpoint, processor, tmp_path / "expected") / "model.onnx.data").read_bytes()
    tensors = load_file(checkpoint / "model.safetensors")
    copies = {name.replace(".1.", ".3."): each for name, each in tensors.items() if f"layers.1{SHARED}" in name}
    assert copies and not copies.keys() & tensors.keys()
    save_file(tensors | copies, checkpoint / "model.safetensors", {"format": "pt"})
    assert (kit.build(checkpoint, processor, tmp_path / "out") / "model.onnx.data").read_bytes() == expected
