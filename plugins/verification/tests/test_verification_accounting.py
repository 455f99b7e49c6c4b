"""What a package is compared with reads all that the checkpoint stores, by a list that is made apart from it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import edit_config, make_checkpoint

from drupe.api import CheckFailed, Context, Model, Target
from drupe_checkpoints.stored_tensors import stored_tensors
from drupe_verification.accounting import Span, joined, refuse_unread_tensors

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Tied by its configuration, with a head of its own in the file."""
    folder = make_checkpoint(tmp_path / "checkpoint", tie_word_embeddings=False)
    return edit_config(folder, tie_word_embeddings=True)


@pytest.fixture
def cpu() -> Target:
    from drupe_ep_cpu.provider import Cpu

    return Cpu().target()


def add(folder: Path, **tensors: np.ndarray[Any, Any]) -> None:
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    save_file({**load_file(path), **tensors}, path, {"format": "pt"})


def embedding(folder: Path) -> np.ndarray[Any, Any]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")[EMBEDDING]


def reference(folder: Path, target: Target, scratch: Path) -> tuple[Model, Model]:
    from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig

    source = Model("hf", folder)
    return source, BuildDecoder().run(source, BuildDecoderConfig(), Context(target, scratch, threads=1))


def test_a_reference_that_reads_everything_passes(checkpoint: Path, cpu: Target, tmp_path: Path) -> None:
    refuse_unread_tensors(*reference(checkpoint, cpu, tmp_path))


def test_a_head_that_was_tied_by_mistake_fails(
    checkpoint: Path, cpu: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drupe_model_builder.tied_head._equal", lambda one, other: True)
    with pytest.raises(CheckFailed, match=HEAD) as caught:
        refuse_unread_tensors(*reference(checkpoint, cpu, tmp_path))
    assert caught.value.cure


def test_what_follows_from_other_tensors_need_not_be_read(checkpoint: Path, cpu: Target, tmp_path: Path) -> None:
    add(checkpoint, **{HEAD: embedding(checkpoint), "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, "f4")})
    refuse_unread_tensors(*reference(checkpoint, cpu, tmp_path))


def test_weights_from_another_file_than_transformers_reads_fail(
    checkpoint: Path, cpu: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(checkpoint / "model.safetensors", checkpoint / "other.safetensors")
    monkeypatch.setattr("drupe_onnx.safetensors.SINGLE", "other.safetensors")
    with pytest.raises(CheckFailed, match=r"other\.safetensors"):
        refuse_unread_tensors(*reference(checkpoint, cpu, tmp_path))


def test_parts_of_a_tensor_that_are_read_one_by_one_count_together() -> None:
    assert joined([(8, 12), (0, 4), (4, 8)]) == [(0, 12)]
    assert joined([(0, 4), (2, 3), (5, 8)]) == [(0, 4), (5, 8)]


@pytest.mark.parametrize(("left_out", "refused"), [((0, 0), False), ((8, 16), True), ((0, 4), True), ((60, 64), True)])
def test_a_tensor_of_which_a_part_is_not_read_fails(
    checkpoint: Path, cpu: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_out: Span, refused: bool
) -> None:
    made = reference(checkpoint, cpu, tmp_path)
    first = min(each.offset for each in (stored_tensors(checkpoint) or {}).values())
    gap = (first + left_out[0], first + left_out[1])

    def with_a_gap(spans: Iterable[Span]) -> list[Span]:
        start, stop = joined(spans)[0]
        return [(start, gap[0]), (gap[1], stop)] if gap[0] < gap[1] else [(start, stop)]

    monkeypatch.setattr("drupe_verification.accounting.joined", with_a_gap)
    with pytest.raises(CheckFailed, match="not part of the converted model") if refused else nullcontext():
        refuse_unread_tensors(*made)


def test_a_source_that_is_no_checkpoint_is_not_accounted_for(checkpoint: Path, cpu: Target, tmp_path: Path) -> None:
    source, made = reference(checkpoint, cpu, tmp_path)
    refuse_unread_tensors(source.but(kind="onnx"), made.but(payload=None))


@pytest.mark.parametrize("kind", ["F16", "Q4_0", "Q4_1", "Q8_0"])
def test_each_tensor_of_a_gguf_file_has_to_be_read(
    kind: str, cpu: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gguf_files import gguf_of

    from drupe_checkpoints.gguf.checkpoint import GgufCheckpoint

    sizes = {"hidden_size": 128, "intermediate_size": 192, "tie_word_embeddings": False}
    path = gguf_of(make_checkpoint(tmp_path / "source", **sizes), kind).write(tmp_path / "model.gguf")
    assert stored_tensors(path)
    refuse_unread_tensors(*reference(path, cpu, tmp_path))
    whole = GgufCheckpoint.tensors

    def with_one_for_another(checkpoint: GgufCheckpoint) -> dict[str, Any]:
        found = dict(whole(checkpoint))
        return found | {"model.layers.1.mlp.up_proj.weight": found["model.layers.0.mlp.up_proj.weight"]}

    monkeypatch.setattr(GgufCheckpoint, "tensors", with_one_for_another)
    with pytest.raises(CheckFailed, match=r"blk\.1\.ffn_up\.weight is not part of the converted model"):
        refuse_unread_tensors(*reference(path, cpu, tmp_path))
