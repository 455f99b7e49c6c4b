"""The limit of KL divergence: what is beyond it fails, and so does one that nothing is measured against."""

from __future__ import annotations

from collections.abc import Sequence

from drupe.api import CheckFailed, Metric, UsageError


def refuse_useless(limit: float | None, reference: object) -> None:
    """Raise UsageError for a limit that nothing keeps, or where there is nothing to diverge from."""
    if limit is not None and not limit > 0:  # NaN is not, either
        raise UsageError("a limit of KL divergence is more than 0", where=f"--max-kl {limit:g}", cure="--max-kl 0.01")
    if limit is not None and reference is None:
        raise UsageError(
            "a limit of KL divergence needs a model to compare with",
            where=f"--max-kl {limit:g}",
            cure="--against MODEL",
        )


def refuse_divergence(metrics: Sequence[Metric], limit: float | None) -> None:
    """Raise CheckFailed for a divergence beyond the limit."""
    found = next((metric.value for metric in metrics if metric.name == "kl_divergence"), 0.0)
    if limit is not None and found > limit:
        raise CheckFailed(
            f"the KL divergence from the source is {found:.4g} nats a token, and {limit:g} is the limit (max_kl)",
            cure="allow more with --max-kl, or give the package more bytes: --target-size, --quality best, --precision",
        )
