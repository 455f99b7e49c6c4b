"""Choosing the scheme of each matrix, and whether GPTQ finds its levels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from drupe.api import Record, UsageError, replace
from drupe_blockquant import Scheme
from drupe_nbits import EMBEDDING, HEAD, Site, candidates, first_served, refusal
from drupe_onnx import Capabilities
from drupe_text import CalibrationConfig

Bits = Literal[2, 4, 8]
LEAST_TOKENS = 4
"""A matrix of K columns needs at least K / LEAST_TOKENS tokens: with fewer, most of its Hessian is damping."""


class QuantizeGptqConfig(CalibrationConfig):
    """The settings of `quantize-gptq`. Bits, block size and symmetry are for matrices without an assigned scheme."""

    calibration_sequences: int = Field(128, ge=1, description="how many sequences of the text are used")
    calibration_length: int = Field(256, ge=2, description="tokens in each sequence")
    damping: float = Field(
        0.01, gt=0, le=1, description="share of the Hessian diagonal's mean that is added to the diagonal"
    )
    bits: Bits = Field(4, description="bits of a weight")
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(None, description="how many weights share a scale")
    symmetric: bool = Field(False, description="without zero points")
    head_bits: Bits | None = Field(None, description="bits of embedding and head; by default 8")
    accuracy_level: int | None = Field(
        None, ge=0, le=4, description="accuracy_level of MatMulNBits; by default the target's"
    )

    def bits_for(self, role: str) -> int:
        """The bits for a role. Small models lose most quality in embedding and head, so these get 8 bits by default."""
        return self.head_bits or 8 if role in (EMBEDDING, HEAD) else self.bits


class Choice(Record):
    """How a site is quantized.

    scheme: None where the site stays in floating point. by_gptq: whether GPTQ finds its levels. is_shared: whether
    another site has the same levels, as a tied head and embedding have, and blocks that layers share.
    """

    site: Site
    scheme: Scheme | None
    by_gptq: bool
    is_shared: bool


def tokens_for(columns: int) -> int:
    """How many tokens a matrix of so many columns needs."""
    return -(-columns // LEAST_TOKENS)


def choices(sites: Sequence[Site], config: QuantizeGptqConfig, capabilities: Capabilities) -> list[Choice]:
    """The choice for each site.

    The error search or rounding is used for matrices that are only looked up in, and for 8 bits, whose rounding errors
    are too small for GPTQ to gain anything.
    """
    users = Counter(site.rows for site in sites)
    products = Counter(site.rows for site in sites if not site.is_look_up)
    found = []
    for site in sites:
        scheme = _scheme(site, config, capabilities)
        by_gptq = scheme is not None and scheme.bits < 8 and products[site.rows] > 0
        found.append(Choice(site, scheme, by_gptq, users[site.rows] > 1))
    return found


def _scheme(site: Site, config: QuantizeGptqConfig, capabilities: Capabilities) -> Scheme | None:
    """The assigned scheme, or the best block size that the target supports; None where it supports none."""
    schemes = _candidates(site, config, capabilities)
    served = first_served(site, schemes, capabilities)
    if served is None and config.block_size and site.scheme is None and not site.is_look_up:
        raise UsageError(
            f"the target does not support '{site.name}' in this scheme: {refusal(site, schemes[0], capabilities)}",
            where=f"block_size = {config.block_size}",
            cure="leave --block-size out",
        )
    return served


def reason(site: Site, config: QuantizeGptqConfig, capabilities: Capabilities) -> str:
    """Why the target does not support the best scheme for a site."""
    return refusal(site, _candidates(site, config, capabilities)[0], capabilities) or ""


def _candidates(site: Site, config: QuantizeGptqConfig, capabilities: Capabilities) -> list[Scheme]:
    found = candidates(site, config.bits_for(site.role), config.symmetric, config.block_size, capabilities)
    return [replace(scheme, method="rtn" if scheme.bits == 8 else "search") for scheme in found]
