"""Taking over experts that are already quantized in the checkpoint, where the target supports their scheme."""

from __future__ import annotations

from collections.abc import Sequence

from drupe_blockquant import Scheme
from drupe_nbits import ExpertMatrices, ExpertSite, expert_refusal, quantize_experts
from drupe_onnx import Capabilities, Concat, Expression, Interleave, Produced, Reshape, ir
from drupe_packed import PackedMatrix, Repacked
from drupe_packed.repacking import schemes_of
from drupe_quant_rtn.prequantized_weights import chosen_scheme

Woven = Sequence[PackedMatrix]
"""The matrices whose rows lie in turn in one expert's matrix: gate and up, or one alone."""


def take_over_experts(graph: ir.Graph, site: ExpertSite, block_size: int | None, capabilities: Capabilities) -> bool:
    """Put the packed weights of experts into the graph, with unchanged levels, scales and zero points. True if done.

    It does nothing where they are not packed, or are packed in a way that QMoE or the target does not support. Raises
    UsageError for a `block_size` that contradicts the checkpoint's.
    """
    found = [_packed(each) for each in (site.up, site.down)]
    every = [part for matrices in found for woven in matrices for part in woven]
    alike = {(part.bits, part.order, part.minimums) for part in every}
    whole = all(matrices or each.is_identity for matrices, each in zip(found, (site.up, site.down), strict=True))
    if not whole or alike != {(every[0].bits, None, None)}:
        return False
    served = [scheme for scheme in schemes_of(every) if expert_refusal(site, scheme, capabilities) is None]
    scheme = chosen_scheme(site.name, served, block_size, capabilities)
    if scheme is None:
        return False
    ready = [_repacked(matrices, scheme, site.dtype) if matrices else None for matrices in found]
    quantize_experts(graph, site, scheme, capabilities, ready)
    return True


def _packed(matrices: ExpertMatrices) -> list[Woven]:
    """The packed matrices of each expert; none where one of them is not packed."""
    found = [_woven(each) for each in matrices.apart]
    return found if all(found) else []


def _woven(matrix: Expression) -> Woven:
    parts = matrix.parts if isinstance(matrix, Interleave) else (matrix,)
    packed = [part for part in parts if isinstance(part, PackedMatrix)]
    return packed if len(packed) == len(parts) else []


def _repacked(matrices: Sequence[Woven], scheme: Scheme, scale_dtype: ir.DataType) -> list[Expression]:
    """The parts of all experts, as in QuantizeBlocks."""
    producers = [[Repacked((part,), scheme, scale_dtype) for part in woven] for woven in matrices]
    count = len(producers[0][0].outputs)
    return [Concat(tuple(_in_turn(each, place) for each in producers)) for place in range(count)]


def _in_turn(producers: Sequence[Repacked], place: int) -> Expression:
    made = [Produced(each, place) for each in producers]
    flat = tuple(Reshape(each, (each.shape[0], each.row_size)) for each in made)
    return flat[0] if len(flat) == 1 else Interleave(flat)
