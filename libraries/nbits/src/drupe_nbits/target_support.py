"""Whether a target supports a site under a scheme, by its operator table and its traits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from drupe_blockquant import Scheme, choose_block_size
from drupe_blockquant.scheme import BLOCK_SIZES
from drupe_nbits.minimums import OPERATORS
from drupe_nbits.rewriting import operator_use
from drupe_nbits.sites import Site
from drupe_onnx import Capabilities, OperatorUse, element_name, ir
from drupe_onnx.traits import COMPUTED_ONCE, DECODE_TIMES, FAST_BLOCKS, WHOLE_BLOCKS

ONNX_OPSET = 21
WANTED_BLOCK = 128
"""Large blocks decode faster and take fewer bytes for scales; with the error search they lose little."""


def refusal(site: Site, scheme: Scheme, capabilities: Capabilities) -> str | None:
    """Why the target does not support a site under a scheme, in words; None where it supports the site."""
    return leaves_rest(site, scheme.block_size, capabilities) or capabilities.refusal(operator_use(site, scheme))


def leaves_rest(site: Site, block_size: int, capabilities: Capabilities) -> str | None:
    """A sentence saying that the rows end within a block, if the target does not support that; otherwise None."""
    k = site.rows.shape[1]
    broken = capabilities.traits.get(WHOLE_BLOCKS) and k % block_size
    return f"its rows of {k} values are not whole blocks of {block_size}" if broken else None


def takes_two_levels(site: Site, capabilities: Capabilities) -> bool:
    """Whether scales of two levels cost no time, because the target multiplies them out when it opens the package."""
    if not capabilities.traits.get(COMPUTED_ONCE):
        return False
    element = element_name(site.dtype)
    product = OperatorUse("", "Mul", ONNX_OPSET, (element, element), (element,))
    stored = ir.DataType.UINT8, ir.DataType.BFLOAT16
    return all(casts(each, site.dtype, capabilities) for each in stored) and capabilities.serves(product)


def takes_minimums(site: Site, stored: ir.DataType, capabilities: Capabilities) -> bool:
    """Whether the target has the operators for a site with minimums of that type, and computes constants beforehand."""
    if site.activations.shape is None or not capabilities.traits.get(COMPUTED_ONCE):
        return False
    element = element_name(site.dtype)
    uses = [OperatorUse("", name, ONNX_OPSET, (element,) * count, (element,)) for name, count in OPERATORS.items()]
    if site.is_look_up:
        uses.append(OperatorUse("", "Gather", ONNX_OPSET, (element, "int64"), (element,)))
    return casts(stored, site.dtype, capabilities) and all(capabilities.serves(use) for use in uses)


def casts(stored: ir.DataType, dtype: ir.DataType, capabilities: Capabilities) -> bool:
    """Whether the target casts one type to another."""
    return capabilities.serves(OperatorUse("", "Cast", ONNX_OPSET, (element_name(stored),), (element_name(dtype),)))


def decode_time(site: Site, scheme: Scheme, capabilities: Capabilities) -> float:
    """Seconds that a site takes of each decoded token; 0 for look-ups, and where the target does not say."""
    picoseconds = capabilities.traits.get(DECODE_TIMES, {}).get(f"{scheme.bits}/{scheme.block_size}", 0.0)
    n, k = site.rows.shape
    return 0.0 if site.is_look_up else n * scheme.blocks(k) * scheme.block_size * float(picoseconds) * 1e-12


def candidates(
    site: Site, bits: int, symmetric: bool, block_size: int | None, capabilities: Capabilities
) -> list[Scheme]:
    """The schemes to try for a site, the best first: the assigned scheme, or these bits in blocks of `block_size`, or
    of every size if that is None. Their method is the default.
    """
    if (assigned := site.scheme) is not None:
        return [assigned]
    sizes = [block_size] if block_size else block_sizes(site, bits, symmetric, capabilities)
    return [Scheme(bits, size, symmetric) for size in sizes]


def first_served(site: Site, schemes: Iterable[Scheme], capabilities: Capabilities) -> Scheme | None:
    """The first scheme that the target supports for a site; None where it supports none of them."""
    return next((scheme for scheme in schemes if refusal(site, scheme, capabilities) is None), None)


def block_sizes(site: Site, bits: int, symmetric: bool, capabilities: Capabilities) -> Sequence[int]:
    """Block sizes for a site, the best first.

    The best size wastes little on padding. Smaller sizes follow, those that are fast on the target first. Larger sizes
    come last.
    """
    fast = capabilities.traits.get(FAST_BLOCKS, BLOCK_SIZES)
    k, scale_bytes = site.rows.shape[1], site.dtype.bitwidth // 8
    best = choose_block_size(k, WANTED_BLOCK, bits=bits, symmetric=symmetric, scale_bytes=scale_bytes)
    return sorted(BLOCK_SIZES, key=lambda size: (size > best, size not in fast, abs(size - best)))
