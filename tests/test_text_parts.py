"""Packages of the text part of a model for text and images: what is left out is told, and the check accounts for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import decoder_families
import pytest
import text_towers
from safetensors.numpy import load_file, save_file

import drupe


def notices(outcome: Any) -> list[str]:
    return [notice.what for notice in outcome.notices if notice.handling == "left out"]


@pytest.mark.parametrize(("name", "towers"), [("gemma3", "multi_modal_projector, vision_tower"),
                                              ("qwen3_vl_moe", "model.visual")])  # fmt: skip
def test_a_package_of_a_text_part_is_checked_and_one_notice_names_the_towers(
    name: str, towers: str, tmp_path: Path
) -> None:
    checkpoint, _ = text_towers.make(name, tmp_path / "checkpoint")
    outcome = drupe.optimize(checkpoint, tmp_path / "out", precision="int4", quality="fast")
    assert outcome.check.not_run is None and outcome.check.not_compared is None
    (told,) = notices(outcome)
    assert told.startswith(f"{towers} (")
    assert "packages the text part of" in told


def test_layers_for_several_tokens_at_once_are_left_out_and_the_check_accounts_for_them(tmp_path: Path) -> None:
    checkpoint, _ = decoder_families.make("qwen3_5_text", tmp_path)
    tensors = load_file(checkpoint / "model.safetensors")
    more = {f"mtp.{name}": each for name, each in tensors.items() if ".layers.3." in name}
    save_file(tensors | more, checkpoint / "model.safetensors", {"format": "pt"})
    outcome = drupe.optimize(checkpoint, tmp_path / "out", precision="int4", quality="fast")
    assert outcome.check.not_run is None and outcome.check.not_compared is None
