"""Attention within chunks: a mask where a context is longer than a chunk, and an error where a target takes none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import decoder_families
import onnx_ir as ir
import pytest

from drupe.api import PlanError, Target, registry, target_of
from drupe_onnx import KernelSupport

NAME = "llama4_text"
BIAS = 10
"""The place of the mask among the inputs of GroupQueryAttention."""


@pytest.fixture(scope="module")
def processor() -> Target:
    """onnxruntime's processor, with the table of the installed version."""
    found = registry()
    return target_of(found.provider("cpu"), found)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder_families.make(NAME, tmp_path_factory.mktemp(NAME))[0]


def masks(package: Path) -> list[str]:
    """The mask that each attention reads; empty for none."""
    graph = ir.load(package / "model.onnx").graph
    attentions = [node for node in graph if node.op_type == "GroupQueryAttention"]
    return [
        "" if len(node.inputs) <= BIAS or node.inputs[BIAS] is None else str(node.inputs[BIAS].name)
        for node in attentions
    ]


def test_layers_that_rotate_share_one_mask(
    checkpoint: Path, kit: SimpleNamespace, processor: Target, tmp_path: Path
) -> None:
    found = masks(kit.build(checkpoint, processor, tmp_path / "out"))
    assert [bool(each) for each in found] == [True, True, True, False, True, True]
    assert len(set(found)) == 2


def test_a_context_of_one_chunk_has_no_mask(
    checkpoint: Path, kit: SimpleNamespace, processor: Target, tmp_path: Path
) -> None:
    kit.edit_config(checkpoint, attention_chunk_size=256)
    assert not any(masks(kit.build(checkpoint, processor, tmp_path / "out")))


def test_a_target_whose_attention_takes_no_mask_is_refused(
    checkpoint: Path, kit: SimpleNamespace, tmp_path: Path
) -> None:
    kit.edit_config(checkpoint, attention_chunk_size=8)
    without = Target("other", "1.32.0", kit.everything(GroupQueryAttention=KernelSupport({}, refused=(BIAS,))))
    with pytest.raises(PlanError, match="no GroupQueryAttention for float32 activations with chunks"):
        kit.build(checkpoint, without, tmp_path / "out", activations="float32")
