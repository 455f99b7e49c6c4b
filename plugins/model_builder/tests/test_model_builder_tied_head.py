"""A head in the file despite `tie_word_embeddings`: it is tied if it equals the embedding, otherwise kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drupe.api import Context, Model, Target

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
PROMPT = [5, 71, 33, 90, 12]


@pytest.fixture
def checkpoint(kit: SimpleNamespace, tmp_path: Path) -> Path:
    """A checkpoint that is tied by its configuration but has a head in its file."""
    folder: Path = kit.make_checkpoint(tmp_path / "checkpoint", "llama", tie_word_embeddings=False)
    return kit.edit_config(folder, tie_word_embeddings=True)  # type: ignore[no-any-return]


def store(folder: Path, **changed: np.ndarray[Any, Any] | None) -> None:
    """Write the checkpoint's weights again with changes. None leaves a tensor out."""
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    tensors = {**load_file(path), **{name: value for name, value in changed.items() if value is not None}}
    kept = {name: value for name, value in tensors.items() if name not in changed or changed[name] is not None}
    save_file(kept, path, {"format": "pt"})


def weights_in(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def built(folder: Path, target: Target, scratch: Path) -> Model:
    from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig

    return BuildDecoder().run(Model("hf", folder), BuildDecoderConfig(), Context(target, scratch, threads=1))


def test_a_head_that_differs_is_kept_with_a_notice(
    checkpoint: Path, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    (notice,) = built(checkpoint, cpu, tmp_path).notices
    assert (notice.about, notice.handling) == ("weights", "chosen")
    assert HEAD in notice.what
    stepper = kit.Stepper(kit.build(checkpoint, cpu, tmp_path / "out", weights="float32", all_logits=True))
    np.testing.assert_allclose(stepper([PROMPT])[0], kit.Reference(checkpoint)(PROMPT), atol=1e-4)


def test_a_head_that_differs_in_one_number_is_kept(checkpoint: Path, cpu: Target, tmp_path: Path) -> None:
    head = weights_in(checkpoint)[EMBEDDING].copy()
    head[37, 11] += 0.5
    store(checkpoint, **{HEAD: head})
    assert len(built(checkpoint, cpu, tmp_path).notices) == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_head_that_equals_the_embedding_is_tied(dtype: str, checkpoint: Path, cpu: Target, tmp_path: Path) -> None:
    store(checkpoint, **{HEAD: weights_in(checkpoint)[EMBEDDING].astype(dtype)})
    model = built(checkpoint, cpu, tmp_path)
    assert model.notices == ()
    assert HEAD not in model.payload.component.graph.initializers


def test_a_head_without_an_embedding_serves_as_both(
    checkpoint: Path, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    store(checkpoint, **{EMBEDDING: None})
    assert built(checkpoint, cpu, tmp_path).notices == ()
    stepper = kit.Stepper(kit.build(checkpoint, cpu, tmp_path / "out", weights="float32", all_logits=True))
    np.testing.assert_allclose(stepper([PROMPT])[0], kit.Reference(checkpoint)(PROMPT), atol=1e-4)
