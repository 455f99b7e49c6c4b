"""Weights that the checkpoint holds quantized already: taken over as they are, where the target serves them so."""

from __future__ import annotations

from collections.abc import Sequence

from drupe.api import Capabilities, OperatorUse, UsageError
from drupe_blockquant import Scheme
from drupe_nbits import Rewriter, Site, refusal
from drupe_nbits.serving import FAST_BLOCKS, ONNX_OPSET, casts, takes_minimums
from drupe_onnx import Array, Expression, Produced, initializer, ir
from drupe_onnx.checking import element_name
from drupe_packed import PackedMatrix, Repacked, parts_of
from drupe_packed.ggml import GgmlValues
from drupe_packed.repacking import minimums_of, schemes_of


def is_quantized_already(rows: Expression) -> bool:
    """Whether any of a matrix comes out of a packed one."""
    return isinstance(rows, PackedMatrix | GgmlValues) or any(is_quantized_already(each) for each in rows.inputs)


def take_over(site: Site, rewriter: Rewriter, block_size: int | None, capabilities: Capabilities) -> bool:
    """Put a site's packed weights into the graph with levels, scales and zero points unchanged; whether that was done.

    It is not where the weights are not packed, or are in a scheme that the target, or MatMulNBits at all, does not
    serve. Bits are the checkpoint's: more would hold nothing more. Raises UsageError where block_size was asked for and
    is another.
    """
    parts = parts_of(site.rows)
    order = parts[0].order if parts else None
    if not parts or (order is not None and not _reorders(site, capabilities)):
        return False
    minimums = minimums_of(parts)
    if minimums is not None and not takes_minimums(site, minimums.dtype, capabilities):
        return False
    scheme = _scheme(site, schemes_of(parts), block_size, capabilities)
    if scheme is None:
        return False
    if order is not None:
        _reorder(site, order, rewriter.graph)
    producer = Repacked(parts, scheme, _scale_dtype(site, parts, capabilities))
    made = [Produced(producer, index) for index in range(len(producer.outputs))]
    rewriter.rewrite(site, scheme, made, minimums)
    return True


def _scheme(site: Site, schemes: Sequence[Scheme], block_size: int | None, capabilities: Capabilities) -> Scheme | None:
    """The one with the largest blocks that the target serves, of those that it is fast with where there is one."""
    fast = capabilities.traits.get(FAST_BLOCKS, ())
    served = [scheme for scheme in schemes if refusal(site, scheme, capabilities) is None]
    if block_size and served:
        asked = [scheme for scheme in served if scheme.block_size == block_size]
        if not asked:
            raise UsageError(
                f"'{site.name}' is quantized already, in blocks of {served[0].block_size}",
                where=f"block_size = {block_size}",
                cure="leave --block-size out, or start from the checkpoint in floating point",
            )
        return asked[0]
    return next((scheme for scheme in served if scheme.block_size in fast), served[0] if served else None)


def _scale_dtype(site: Site, parts: Sequence[PackedMatrix], capabilities: Capabilities) -> ir.DataType:
    """The scales' own type where a Cast of the target brings it to the one that the graph computes in."""
    dtypes = {part.scale_dtype for part in parts}
    own = dtypes.pop()
    if dtypes or own.bitwidth >= site.dtype.bitwidth:
        return site.dtype
    return own if casts(own, site.dtype, capabilities) else site.dtype


def _reorders(site: Site, capabilities: Capabilities) -> bool:
    """Whether the target puts the activations of a product into another order."""
    element = element_name(site.dtype)
    gather = OperatorUse("", "Gather", ONNX_OPSET, (element, "int64"), (element,), {"axis": -1})
    return not site.is_look_up and capabilities.serves(gather)


def _reorder(site: Site, order: Array, graph: ir.Graph) -> None:
    """Let a product see its activations in the order in which the columns of its weights are packed."""
    name = f"{site.name}/order"
    indices = initializer(name, order)
    graph.register_initializer(indices)
    gather = ir.node(
        "Gather",
        [site.activations, indices],
        {"axis": -1},
        name=f"{name}/Gather",
        metadata_props=dict(site.node.metadata_props),
    )
    ordered = gather.outputs[0]
    ordered.name, ordered.type, ordered.shape = f"{name}d", site.activations.type, site.activations.shape
    graph.insert_before(site.node, gather)
    site.node.replace_input_with(0, ordered)
