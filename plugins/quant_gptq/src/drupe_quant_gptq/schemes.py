"""Which scheme a matrix gets, and whether GPTQ finds its levels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from drupe.api import Capabilities, UsageError
from drupe_blockquant import Scheme
from drupe_nbits import EMBEDDING, HEAD, Site, candidates, first_served, refusal
from drupe_text import CalibrationConfig

Bits = Literal[2, 4, 8]


class QuantizeGptqConfig(CalibrationConfig):
    """What `quantize-gptq` can be told. Bits, block size and symmetry are for matrices that no pass has decided on."""

    calibration_sequences: int = Field(128, ge=1, description="how many sequences")
    calibration_length: int = Field(256, ge=2, description="tokens of each sequence")
    damping: float = Field(0.01, gt=0, description="what is added to the Hessian's diagonal, in parts of its mean")
    bits: Bits = Field(4, description="bits of a weight")
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(None, description="weights that share a scale")
    symmetric: bool = Field(False, description="without zero points")
    head_bits: Bits | None = Field(None, description="bits of embedding and head; by default 8")
    accuracy_level: int | None = Field(None, ge=0, le=4, description="of MatMulNBits; by default the target's")

    def bits_for(self, role: str) -> int:
        """Small models lose most through their embedding and head, so these get 8 bits unless told otherwise."""
        return self.head_bits or 8 if role in (EMBEDDING, HEAD) else self.bits


@dataclass(frozen=True)
class Choice:
    """What becomes of a site.

    scheme: None where it stays in floating point. by_gptq: whether GPTQ finds its levels. is_shared: whether they are
    those of another site too, as a head's are where tokens are looked up in its matrix.
    """

    site: Site
    scheme: Scheme | None
    by_gptq: bool
    is_shared: bool


def choices(sites: Sequence[Site], config: QuantizeGptqConfig, capabilities: Capabilities) -> list[Choice]:
    """One for each site.

    Left to the error search or to rounding are matrices that are only looked up in, or multiplied with more than once;
    and 8 bits, whose rounding errors are too small for GPTQ to gain anything.
    """
    users = Counter(site.rows for site in sites)
    products = Counter(site.rows for site in sites if not site.is_look_up)
    found = []
    for site in sites:
        scheme = _scheme(site, config, capabilities)
        by_gptq = scheme is not None and scheme.bits < 8 and products[site.rows] == 1
        found.append(Choice(site, scheme, by_gptq, users[site.rows] > 1))
    return found


def _scheme(site: Site, config: QuantizeGptqConfig, capabilities: Capabilities) -> Scheme | None:
    """What a pass has decided, or else the best block size that the target serves; None where it serves none."""
    schemes = _candidates(site, config, capabilities)
    served = first_served(site, schemes, capabilities)
    if served is None and config.block_size and site.scheme is None and not site.is_look_up:
        raise UsageError(
            f"the target does not multiply with '{site.name}' so: {refusal(site, schemes[0], capabilities)}",
            where=f"block_size = {config.block_size}",
            cure="leave --block-size out",
        )
    return served


def _candidates(site: Site, config: QuantizeGptqConfig, capabilities: Capabilities) -> list[Scheme]:
    found = candidates(site, config.bits_for(site.role), config.symmetric, config.block_size, capabilities)
    return [replace(scheme, method="rtn" if scheme.bits == 8 else "search") for scheme in found]
