"""The scheme that experts get by a pass's settings, and the error for settings that the target does not support."""

from __future__ import annotations

from collections.abc import Sequence

from drupe.api import Target, UsageError
from drupe_blockquant import Scheme
from drupe_blockquant.scheme import BLOCK_SIZES
from drupe_nbits.experts import ExpertSite, expert_refusal, expert_schemes
from drupe_onnx import capabilities_of


def expert_scheme(
    site: ExpertSite, bits: int, symmetric: bool, block_size: int | None, target: Target, other_bits: Sequence[int]
) -> Scheme | None:
    """The best scheme for experts; None where the target supports them quantized in no way, so they stay as they are.

    other_bits: what the user could ask for in place of `bits`. Raises UsageError for experts that the target supports
    with other settings.
    """
    capabilities = capabilities_of(target)

    def found(bits: int, block_size: int | None) -> list[Scheme]:
        return expert_schemes(site, bits, symmetric, block_size, capabilities)

    if schemes := found(bits, block_size):
        return schemes[0]
    cures = [f"--block-size {size}" for size in BLOCK_SIZES if block_size and found(bits, size)]
    cures += [f"--precision int{each}" for each in other_bits if each != bits and found(each, block_size)]
    if not cures:
        return None
    size = f" in blocks of {block_size}" if block_size else ""
    tried = expert_refusal(site, Scheme(bits, block_size or 32, symmetric), capabilities)
    raise UsageError(
        f"'{target.provider}' cannot run the experts '{site.name}' at {bits} bits{size}: {tried}",
        where=f"block_size = {block_size}" if block_size else f"bits = {bits}",
        cure=" or ".join(cures),
    )
