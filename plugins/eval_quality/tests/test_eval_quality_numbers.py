"""The measured numbers equal those computed with plain numpy and with transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from plain_decoders import decoder_feed

import drupe
from drupe.api import CheckFailed
from drupe_eval_quality.position_sums import PositionSums

pytest.importorskip("onnxruntime")

Package = Callable[[Path, str], Path]


def measured(package: Path, against: Path | None = None, **config: object) -> dict[str, float]:
    return {metric.name: metric.value for metric in drupe.evaluate(package, against, **config)}


def transformers_logits(checkpoint: Path, tokens: list[int]) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([tokens])).logits[0].double().numpy()
    return logits


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def encoded(checkpoint: Path, text: Path) -> list[int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    ids: list[int] = tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False).ids
    return ids


def test_a_package_has_no_divergence_from_itself(checkpoint: Path, package: Package, text: Path) -> None:
    folder = package(checkpoint, "int4")
    found = measured(folder, folder, evaluation_data=text, tokens=100)
    assert found["kl_divergence"] == pytest.approx(0, abs=1e-6)
    assert found["top1_agreement"] == 1
    assert found["perplexity"] == found["reference_perplexity"]


def test_divergence_agreement_and_perplexity_equal_those_computed_from_the_logits() -> None:
    rng = np.random.default_rng(3)
    reference, logits = rng.normal(0, 6, (2, 40, 500))
    logits = reference + logits * 0.05
    tokens = rng.integers(0, 500, 40)
    tally = PositionSums()
    for at, token in enumerate(tokens):
        tally.add(token, logits[at].astype(np.float32), reference[at].astype(np.float32))
    p, q = log_softmax(reference), log_softmax(logits)
    rows = np.arange(40)
    assert tally.divergence / 40 == pytest.approx((np.exp(p) * (p - q)).sum(1).mean(), rel=1e-4)
    assert tally.agreed == (logits.argmax(1) == reference.argmax(1)).sum()
    assert tally.perplexity == pytest.approx(np.exp(-q[rows, tokens].mean()), rel=1e-6)
    assert tally.reference_perplexity == pytest.approx(np.exp(-p[rows, tokens].mean()), rel=1e-6)


def test_small_divergences_are_exact_with_large_logits() -> None:
    rng = np.random.default_rng(4)
    reference = (rng.normal(0, 3, 150_000) + 1000).astype(np.float32)
    logits = (reference - 1000 + rng.normal(0, 0.01, 150_000)).astype(np.float32)
    tally = PositionSums()
    tally.add(0, logits, reference)
    p, q = log_softmax(reference.astype(np.float64)), log_softmax(logits.astype(np.float64))
    expected = (np.exp(p) * (p - q)).sum()
    assert expected < 1e-4
    assert tally.divergence == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_an_error(bad: float) -> None:
    logits = np.zeros(10, np.float32)
    logits[4] = bad
    with pytest.raises(CheckFailed, match="the package are not finite"):
        PositionSums().add(0, logits, None)


def test_perplexity_equals_that_of_transformers(checkpoint: Path, package: Package, text: Path) -> None:
    found = measured(package(checkpoint, "fp32"), evaluation_data=text, tokens=100, length=100)
    tokens = encoded(checkpoint, text)[:101]
    logits = log_softmax(transformers_logits(checkpoint, tokens[:-1]))
    expected = np.exp(-logits[np.arange(100), tokens[1:]].mean())
    assert found == {"perplexity": pytest.approx(expected, rel=1e-3)}


def test_each_window_starts_with_the_beginning_of_sequence(
    checkpoint_with_beginning: Path, package: Package, text: Path
) -> None:
    """70 tokens in windows of 30 make three windows, the last one shorter. Each starts with <s>."""
    found = measured(package(checkpoint_with_beginning, "fp32"), evaluation_data=text, tokens=70, length=30)
    tokens = encoded(checkpoint_with_beginning, text)[:70]
    surprises = []
    for start in (0, 30, 60):
        window = [256, *tokens[start : start + 30]]
        logits = log_softmax(transformers_logits(checkpoint_with_beginning, window[:-1]))
        surprises += [-logits[at, token] for at, token in enumerate(window[1:])]
    assert len(surprises) == 70
    assert found["perplexity"] == pytest.approx(np.exp(np.mean(surprises)), rel=1e-3)


def test_divergence_from_a_checkpoint_equals_that_computed_with_transformers(
    checkpoint: Path, package: Package, text: Path
) -> None:
    """The reference is packaged at float32. The package's logits come from plain onnxruntime."""
    from onnxruntime import InferenceSession

    from drupe.api import Model
    from drupe_onnx import write_twin

    folder = package(checkpoint, "int8")
    found = measured(folder, checkpoint, evaluation_data=text, tokens=60)
    tokens = encoded(checkpoint, text)[:61]
    twin = write_twin(Model("onnx", folder), text.parent / "twin")
    session = InferenceSession(twin.location / "model.onnx", providers=["CPUExecutionProvider"])
    q = log_softmax(session.run(["logits"], decoder_feed(session, tokens[:-1]))[0][0].astype(np.float64))
    p = log_softmax(transformers_logits(checkpoint, tokens[:-1]))
    expected = (np.exp(p) * (p - q)).sum(1).mean()
    assert expected > 1e-5
    assert found["kl_divergence"] == pytest.approx(expected, rel=2e-2)
    assert found["top1_agreement"] == pytest.approx((p.argmax(1) == q.argmax(1)).mean(), abs=0.02)
