"""The limit of KL divergence: the errors for a package above it, and for a limit without a reference."""

from __future__ import annotations

from collections.abc import Sequence

from drupe.api import CheckFailed, Metric, UsageError


def refuse_without_reference(limit: float | None, reference: object) -> None:
    """Raise UsageError for a limit where no reference was given."""
    if limit is not None and reference is None:
        raise UsageError(
            "a limit of KL divergence needs a model to compare with",
            where=f"--max-kl {limit:g}",
            cure="--against MODEL",
        )


def refuse_divergence(metrics: Sequence[Metric], limit: float | None) -> None:
    """Raise CheckFailed, with the metrics, for a divergence above the limit."""
    found = next((metric.value for metric in metrics if metric.name == "kl_divergence"), 0.0)
    if limit is not None and found > limit:
        raise CheckFailed(
            f"the KL divergence from the source is {found:.4g} nats a token, above the limit of {limit:g} (--max-kl)",
            cure="--quality best, a higher --precision or more bytes (--target-size beside --max-kl) come closer to "
            "the source; how close shows when the package is made",
            metrics=metrics,
        )
