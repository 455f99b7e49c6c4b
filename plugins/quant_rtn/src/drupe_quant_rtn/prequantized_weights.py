"""Taking over weights that are already quantized in the checkpoint, where the target supports their scheme."""

from __future__ import annotations

from collections.abc import Sequence

from drupe.api import UsageError
from drupe_blockquant import Scheme
from drupe_nbits import Rewriter, Site, refusal
from drupe_nbits.minimums import Minimums
from drupe_nbits.target_support import ONNX_OPSET, casts, takes_minimums
from drupe_onnx import (
    Array,
    Capabilities,
    Expression,
    OperatorUse,
    Produced,
    Tape,
    element_name,
    ir,
    shared_initializer,
)
from drupe_onnx.traits import FAST_BLOCKS
from drupe_packed import PackedMatrix, Repacked, parts_of
from drupe_packed.ggml import GgmlValues
from drupe_packed.repacking import minimums_of, schemes_of


def is_quantized_already(rows: Expression) -> bool:
    """Whether any part of a matrix comes from a packed matrix."""
    return isinstance(rows, PackedMatrix | GgmlValues) or any(is_quantized_already(each) for each in rows.inputs)


def take_over(site: Site, rewriter: Rewriter, block_size: int | None, capabilities: Capabilities) -> bool:
    """Put a site's packed weights into the graph, with unchanged levels, scales and zero points. True if done.

    It does nothing where the weights are not packed, or where MatMulNBits or the target does not support their scheme.
    The bits are the checkpoint's: more bits would add no information. Raises UsageError for a `block_size` that
    contradicts the checkpoint's.
    """
    parts = parts_of(site.rows)
    order = parts[0].order if parts else None
    if not parts or (order is not None and not _reorders(site, capabilities)):
        return False
    minimums = minimums_of(parts)
    if minimums is not None and not takes_minimums(site, minimums.dtype, capabilities):
        return False
    served = [scheme for scheme in schemes_of(parts) if refusal(site, scheme, capabilities) is None]
    scheme = chosen_scheme(site.name, served, block_size, capabilities)
    if scheme is None:
        return False
    if order is not None:
        _reorder(site, order, rewriter.graph)
    producer = Repacked(parts, scheme, _scale_dtype(site, parts, capabilities))
    made = [Produced(producer, index) for index in range(len(producer.outputs))]
    rewriter.rewrite(site, scheme, made, None if minimums is None else Minimums(minimums, parts[0].lowest))
    return True


def chosen_scheme(
    name: str, served: Sequence[Scheme], block_size: int | None, capabilities: Capabilities
) -> Scheme | None:
    """Of the supported schemes, the one with the largest blocks; fast block sizes come first. name: for the error."""
    fast = capabilities.traits.get(FAST_BLOCKS, ())
    if block_size and served:
        asked = [scheme for scheme in served if scheme.block_size == block_size]
        if not asked:
            raise UsageError(
                f"'{name}' is already quantized, in blocks of {served[0].block_size}",
                where=f"block_size = {block_size}",
                cure="leave --block-size out, or start from the checkpoint in floating point",
            )
        return asked[0]
    return next((scheme for scheme in served if scheme.block_size in fast), served[0] if served else None)


def _scale_dtype(site: Site, parts: Sequence[PackedMatrix], capabilities: Capabilities) -> ir.DataType:
    """The scales' own type if the target can cast it to the type that the graph computes in."""
    dtypes = {part.scale_dtype for part in parts}
    own = dtypes.pop()
    if dtypes or own.bitwidth >= site.dtype.bitwidth:
        return site.dtype
    return own if casts(own, site.dtype, capabilities) else site.dtype


def _reorders(site: Site, capabilities: Capabilities) -> bool:
    """Whether the target has the operator that reorders the activations of a product."""
    element = element_name(site.dtype)
    gather = OperatorUse("", "Gather", ONNX_OPSET, (element, "int64"), (element,), {"axis": -1})
    return not site.is_look_up and capabilities.serves(gather)


def _reorder(site: Site, order: Array, graph: ir.Graph) -> None:
    """Reorder the activations of a product to the order in which the columns of its weights are packed."""
    name, given = f"{site.name}/order", site.activations
    tape = Tape(site.node.metadata_props)
    inputs = [given, shared_initializer(graph, name, order)]
    ordered = tape.node("Gather", inputs, f"{name}/Gather", given.dtype, given.shape, {"axis": -1}, output=f"{name}d")
    graph.insert_before(site.node, tape.nodes)
    site.node.replace_input_with(0, ordered)
