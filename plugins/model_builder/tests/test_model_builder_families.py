"""Every family computes what transformers computes: a prompt, cached steps, a second prompt, a padded batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decoder_families
import numpy as np
import pytest

from drupe.api import Target, registry, target_of
from drupe_model_builder.finding import own_families

PROMPT = [5, 71, 33, 90, 12, 12, 48, 7, 66, 23, 81, 44, 9, 9, 31, 77, 3, 50, 18, 62]
STEPS = ([17], [4, 4, 58], [60])
"""A token, then a second prompt, then a token: longer than every window, and than the YaRN model's first context."""
TOLERANCE = 1e-4
"""Of the largest logit."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(checkpoint, reference) of a case, made once."""
    found: dict[str, tuple[Path, Path]] = {}

    def make(name: str) -> tuple[Path, Path]:
        if name not in found:
            found[name] = decoder_families.make(name, tmp_path_factory.mktemp("family"))
        return found[name]

    return make


@pytest.fixture(scope="module")
def processor() -> Target:
    """onnxruntime's processor, with the table of the installed version."""
    found = registry()
    return target_of(found.provider("cpu"), found)


def agree(logits: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(logits - expected).max() < TOLERANCE * np.abs(expected).max()


def test_every_family_has_a_case() -> None:
    assert set(own_families()) == set(map(decoder_families.model_type_of, decoder_families.EVERY_CASE))


@pytest.mark.parametrize("name", decoder_families.CASES)
def test_a_family_agrees_with_transformers(
    name: str, made: Any, kit: SimpleNamespace, processor: Target, tmp_path: Path
) -> None:
    checkpoint, reference = made(name)
    package = kit.build(checkpoint, processor, tmp_path / "out", weights="float32", all_logits=True)
    stepper, expected = kit.Stepper(package), kit.Reference(reference)
    for new in (PROMPT, *STEPS):
        logits = expected(new)
        assert logits.std() > 0.02  # or agreement would say nothing
        agree(stepper([new])[0], logits)


@pytest.mark.parametrize("name", decoder_families.RECURRENT)
def test_padding_among_later_tokens_of_a_recurrent_family_is_refused(
    name: str, made: Any, kit: SimpleNamespace, processor: Target, tmp_path: Path
) -> None:
    checkpoint, _ = made(name)
    stepper = kit.Stepper(kit.build(checkpoint, processor, tmp_path / "out", weights="float32"), rows=2)
    stepper([PROMPT[:7], PROMPT])
    with pytest.raises(Exception, match="rows with unequal numbers of new tokens cannot share a batch"):
        stepper([PROMPT[:7], PROMPT])


@pytest.mark.parametrize(
    ("name", "side"),
    [*((name, "right") for name in decoder_families.CASES), *((name, "left") for name in decoder_families.RECURRENT)],
)
def test_rows_of_a_padded_batch_of_a_family_agree_with_transformers_alone(
    name: str, side: str, made: Any, kit: SimpleNamespace, processor: Target, tmp_path: Path
) -> None:
    """The graph of this test keeps the last token only."""
    checkpoint, reference = made(name)
    stepper = kit.Stepper(kit.build(checkpoint, processor, tmp_path / "out", weights="float32"), rows=2, side=side)
    references = [kit.Reference(reference) for _ in range(2)]
    for new in ([PROMPT[:7], PROMPT], [[8], [19]], [[44], [2]]):
        expected = np.stack([one(row)[-1:] for one, row in zip(references, new, strict=True)])
        agree(stepper(new), expected)
