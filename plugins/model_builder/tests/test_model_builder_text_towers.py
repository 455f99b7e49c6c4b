"""The text part of a model for text and images or sound computes what the whole model computes for text."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import text_towers

from drupe.api import Target, registry, target_of

PROMPT = [5, 71, 33, 90, 12, 12, 48, 7, 66, 23, 81, 44, 9, 9, 31, 77, 3, 50, 18, 62]
"""Longer than every window."""


@pytest.fixture(scope="module")
def processor() -> Target:
    """onnxruntime's processor, with the table of the installed version."""
    found = registry()
    return target_of(found.provider("cpu"), found)


@pytest.mark.parametrize("name", text_towers.CASES)
def test_a_text_part_agrees_with_the_whole_model(
    name: str, kit: SimpleNamespace, processor: Target, tmp_path: Path
) -> None:
    import torch

    checkpoint, model = text_towers.make(name, tmp_path / "checkpoint")
    package = kit.build(checkpoint, processor, tmp_path / "out", weights="float32", all_logits=True)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([PROMPT])).logits[0].numpy()
    assert expected.std() > 0.02  # or agreement would say nothing
    stepper = kit.Stepper(package)
    logits = np.concatenate([stepper([PROMPT[:12]])[0], stepper([PROMPT[12:]])[0]])
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
