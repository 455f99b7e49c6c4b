"""Positions: rotary embeddings that scale with the context or the sequence, and batches padded on either side."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drupe.api import Model, PlanError, Target
from drupe_onnx import OnnxKind, decoder_of

TRAINED = 32
PROMPT = [5, 71, 33, 90, 12, 12, 48, 7, 66, 23, 81]
LONG = [(7 * place) % 95 + 1 for place in range(45)]  # more tokens than TRAINED
ROPES: dict[str, dict[str, Any]] = {
    "yarn": {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": TRAINED},
    "linear": {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0},
    "longrope": {
        "rope_type": "longrope", "rope_theta": 100.0, "original_max_position_embeddings": TRAINED, "factor": 4.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
        "long_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0],
    },
}  # fmt: skip


def context_length(package: Path) -> int | None:
    model = OnnxKind().load(Model("onnx", package))
    return decoder_of(model.payload.component).context_length


def agree(package: Path, folder: Path, kit: SimpleNamespace, *chunks: list[int]) -> None:
    """Assert that the logits of all tokens equal those of transformers, for each chunk of one sequence."""
    stepper, reference = kit.Stepper(package), kit.Reference(folder)
    for chunk in chunks:
        expected = reference(chunk)
        assert expected.std() > 0.1  # otherwise equal logits would prove nothing
        np.testing.assert_allclose(stepper([chunk])[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "in_memory"), [*((name, True) for name in ROPES), ("dynamic", False)])
def test_a_scaled_rotary_embedding_agrees_with_transformers_below_and_above_the_trained_length(
    name: str, in_memory: bool, kit: SimpleNamespace, tmp_path: Path
) -> None:
    """Also if one sequence passes the trained length. config.json keeps this length, as model cards tell users to."""
    rope = {"rope_parameters": ROPES[name], "max_position_embeddings": TRAINED}
    folder = kit.make_checkpoint(tmp_path / "checkpoint", "llama", **rope)
    target = Target("cpu", "1.32.0", kit.everything(in_memory=in_memory))
    package = kit.build(folder, target, tmp_path / "out", weights="float32", all_logits=True)
    assert context_length(package) == 4 * TRAINED
    graph = OnnxKind().load(Model("onnx", package)).payload.component.graph
    assert all(each.uses() for each in graph.initializers.values())  # onnxruntime warns of others
    agree(package, folder, kit, PROMPT, [17], [4, 4, 58])
    agree(package, folder, kit, LONG, [17], [4, 4, 58])
    agree(package, folder, kit, LONG[: TRAINED - 1], [17], [4], [58], LONG[:3])


def test_other_names_of_rotary_types_are_accepted(kit: SimpleNamespace, cpu: Target, tmp_path: Path) -> None:
    folder = kit.make_checkpoint(tmp_path / "checkpoint", "qwen2")
    plain = kit.build(folder, cpu, tmp_path / "plain", weights="float32")
    kit.edit_config(folder, rope_parameters=None, rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]})
    mrope = kit.build(folder, cpu, tmp_path / "mrope", weights="float32")
    assert (plain / "model.onnx.data").read_bytes() == (mrope / "model.onnx.data").read_bytes()
    kit.edit_config(folder, rope_scaling=ROPES["longrope"])
    longrope = kit.build(folder, cpu, tmp_path / "longrope", weights="float32")
    kit.edit_config(folder, rope_scaling={**ROPES["longrope"], "rope_type": "su"})
    su = kit.build(folder, cpu, tmp_path / "su", weights="float32")
    assert kit.Stepper(su)([LONG]).tolist() == kit.Stepper(longrope)([LONG]).tolist()


def test_a_context_of_a_million_tokens_needs_no_table_and_gives_the_same_logits(
    kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    folder = kit.make_checkpoint(tmp_path / "checkpoint", "qwen2")
    stored = kit.build(folder, cpu, tmp_path / "stored", weights="float32", all_logits=True)
    kit.edit_config(folder, max_position_embeddings=1_010_000)
    package = kit.build(folder, cpu, tmp_path / "out", weights="float32", all_logits=True)
    assert (package / "model.onnx.data").stat().st_size < (stored / "model.onnx.data").stat().st_size
    assert context_length(package) == 1_010_000
    agree(package, folder, kit, LONG, [17], [4, 4, 58])
    halves = kit.build(folder, cpu, tmp_path / "half", weights="float16", activations="float16")
    logits = kit.Stepper(halves)([LONG])
    np.testing.assert_allclose(logits[0], kit.Reference(folder)(LONG)[-1:], atol=0.05, rtol=0)


def test_a_rotary_embedding_that_changes_with_the_length_is_refused_for_targets_that_cannot_compute_it(
    kit: SimpleNamespace, tmp_path: Path
) -> None:
    folder = kit.make_checkpoint(tmp_path / "checkpoint", "llama", rope_parameters=ROPES["dynamic"])
    with pytest.raises(PlanError, match="changes with the length"):
        kit.build(folder, Target("other", "1", kit.everything(Cos=None)), tmp_path / "out")


@pytest.mark.parametrize("rope", [None, "dynamic"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("context", [128, 100_000])
def test_rows_padded_on_either_side_agree_with_unpadded_rows_in_transformers(
    rope: str | None, side: str, context: int, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"max_position_embeddings": context}
    if rope:
        settings["rope_parameters"] = ROPES[rope]
    folder = kit.make_checkpoint(tmp_path / "checkpoint", "llama", **settings)
    package = kit.build(folder, cpu, tmp_path / "out", weights="float32")
    stepper = kit.Stepper(package, rows=3, side=side)
    references = [kit.Reference(folder) for _ in range(3)]
    for new in ([PROMPT[:4], PROMPT, PROMPT[3:9]], [[8], [19], [70]], [[44], [2], [3]]):
        expected = np.stack([reference(row)[-1:] for reference, row in zip(references, new, strict=True)])
        np.testing.assert_allclose(stepper(new), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("refused", [{}, {"GroupQueryAttention": None}])
def test_all_logits_are_at_the_positions_of_their_tokens(
    refused: dict[str, Any], kit: SimpleNamespace, tmp_path: Path
) -> None:
    """With and without rotation inside attention; where position_ids are an input, they are those of the mask."""
    from drupe_onnx import KernelSupport

    apart = {name: KernelSupport({}, attributes={"do_rotary": (0,)}, refused=(14, 15)) for name in refused}
    folder = kit.make_checkpoint(tmp_path / "checkpoint", "llama")
    target = Target("other", "1.32.0", kit.everything(**apart))
    package = kit.build(folder, target, tmp_path / "out", weights="float32", all_logits=True)
    rows = [PROMPT[:4], PROMPT, PROMPT[3:9]]
    for side in ("left", "right"):
        logits = kit.Stepper(package, rows=3, side=side)(rows)
        for row, found in zip(rows, logits, strict=True):
            own = found[-len(row) :] if side == "left" else found[: len(row)]
            np.testing.assert_allclose(own, kit.Reference(folder)(row), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("kind", "head_dim", "rotates"),
    [("llama", 6, True), ("llama", 20, False), ("llama", 100, True), ("qwen3", 36, True), ("qwen3", 20, False)],
)
def test_heads_of_any_even_size_are_padded_to_a_size_that_the_operator_accepts(
    kind: str, head_dim: int, rotates: bool, kit: SimpleNamespace, tmp_path: Path
) -> None:
    from drupe_onnx import KernelSupport

    attributes = {} if rotates else {"attributes": {"do_rotary": (0,)}}
    table = kit.everything(GroupQueryAttention=KernelSupport({}, refused=(14, 15), **attributes))
    folder = kit.make_checkpoint(tmp_path / "checkpoint", kind, head_dim=head_dim)
    package = kit.build(folder, Target("cpu", "1.32.0", table), tmp_path / "out", weights="float32", all_logits=True)
    multiple = 16 if rotates else 8
    size = -(-head_dim // multiple) * multiple
    assert kit.Stepper(package).past["past_key_values.0.key"].shape[-1] == size
    assert decoder_of(OnnxKind().load(Model("onnx", package)).payload.component).head_dim == size
    agree(package, folder, kit, PROMPT, [17], [4, 4, 58])


def test_whole_numbers_may_be_written_as_floats(kit: SimpleNamespace, cpu: Target, tmp_path: Path) -> None:
    folder = kit.make_checkpoint(tmp_path / "checkpoint", "llama")
    plain = kit.build(folder, cpu, tmp_path / "plain")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    sizes = ("hidden_size", "max_position_embeddings", "num_attention_heads", "vocab_size", "eos_token_id")
    kit.edit_config(folder, **{key: float(config[key]) for key in sizes})
    floats = kit.build(folder, cpu, tmp_path / "floats")
    assert (plain / "model.onnx").read_bytes() == (floats / "model.onnx").read_bytes()
