"""What `allocate-bits` can be told."""

from __future__ import annotations

from pydantic import Field, field_validator

from drupe.api import PassConfig, UsageError
from drupe_mixed_precision.sizes import parse_size


class AllocateBitsConfig(PassConfig):
    """At most one budget of bytes; without any, as few as `max_kl` allows, or GENEROUS times the usual.

    Only the last of these looks at the time that decoding takes as well.

    block_size, head_bits: where one is given, schemes are the user's business, and this pass leaves everything alone.
    """

    target_size: str | None = Field(None, description="bytes of graph and weights, such as 250MB")
    bits_per_weight: float | None = Field(
        None, ge=2, le=16, description="bits a weight, scales and zero points included"
    )
    max_kl: float | None = Field(
        None, gt=0, le=100, description="KL divergence, nats a token, that the weights may cost", examples=[0.01]
    )
    calibrated: bool = Field(False, description="whether the weights are going to be calibrated")
    symmetric: bool = Field(False, description="without zero points")
    block_size: int | None = None
    head_bits: int | None = None

    @field_validator("target_size")
    @classmethod
    def _is_a_size(cls, text: str | None) -> str | None:
        if text is not None:
            parse_size(text)
        return text

    @property
    def has_budget(self) -> bool:
        """Whether there is another limit than the default."""
        return (self.target_size, self.bits_per_weight, self.max_kl) != (None, None, None)


def refuse_budget(config: AllocateBitsConfig) -> None:
    """A budget and a scheme of one's own exclude each other."""
    budgets = {"--target-size": config.target_size, "--bits-per-weight": config.bits_per_weight}
    given = next((flag for flag, value in budgets.items() if value is not None), None)
    if given:
        fixed = "--block-size" if config.block_size else "--head-bits"
        raise UsageError(f"{given} chooses what {fixed} sets", cure=f"leave {fixed} out")
