"""Groups: products and experts with one input whose channels can be scaled, and the giver that is divided by them.

If a product's weights for an input channel are multiplied with a scale, the weights that make this channel have to be
divided by it: those of the norm before the product, or the rows of an earlier product.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drupe.api import Record
from drupe_equalize.expressions import ScaledRows, scaled_columns
from drupe_equalize.matrix_replacement import put_rows, put_vector
from drupe_equalize.norms import Norm, scalable_norm_at, scale_norm
from drupe_nbits import ExpertSite, Site, find_experts, find_float_sites, find_sites, put_expert_rows
from drupe_onnx import LAST_TOKEN, MICROSOFT, PADDING, ROLE, Affine, Array, as_type, constant_of, ir

Scales = NDArray[np.float32]
MOVING = (LAST_TOKEN, PADDING)
"""The roles of nodes that leave tokens out or arrange them anew: what a channel holds stays in it."""


class Rows(Record):
    """Rows [first, first + count) of a product's matrix, and of the bias that is added to the product's result.

    bias: the node that adds it, and the place of the input; None where there is none.
    """

    node: ir.Node
    first: int
    count: int
    bias: tuple[ir.Node, int] | None


class Group(Record):
    """Products and experts that read one value, and the giver that makes the value's channels.

    giver: the norm or the rows of a product that are divided by the scales. products: their nodes, also of those that
    stay in floating point. experts: nodes whose first matrices read the value. channels: for each channel of the value,
    the giver's channel that it comes from; with grouped heads, several come from the same one.
    """

    giver: Norm | Rows
    value: ir.Value
    products: tuple[ir.Node, ...]
    experts: tuple[ir.Node, ...]
    channels: NDArray[np.intp]

    @property
    def name(self) -> str:
        """The group's name in messages: its nodes."""
        return ", ".join(node.name or node.op_type for node in (*self.products, *self.experts))

    def sites(self, graph: ir.Graph) -> list[Site]:
        """The sites of the products that will be quantized, read from the graph as it is now."""
        return [site for site in find_sites(graph) if any(site.node is node for node in self.products)]

    def float_sites(self, graph: ir.Graph) -> list[Site]:
        """The sites of the products that stay in floating point, such as routers."""
        return [site for site in find_float_sites(graph) if any(site.node is node for node in self.products)]

    def expert_sites(self, graph: ir.Graph) -> list[ExpertSite]:
        """The experts, read from the graph as it is now."""
        return [site for site in find_experts(graph) if any(site.node is node for node in self.experts)]

    def most(self, values: Scales) -> Scales:
        """The largest of the values [channels] that belong to each channel of the giver."""
        out = np.zeros(int(self.channels.max()) + 1, np.float32)
        np.maximum.at(out, self.channels, values)
        return out

    def mean(self, values: Scales) -> Scales:
        """The mean of the values [channels] that belong to each channel of the giver."""
        total = np.bincount(self.channels, values)
        return (total / np.bincount(self.channels)).astype(np.float32)


def find_groups(graph: ir.Graph, nodes: Sequence[ir.Node]) -> list[Group]:
    """The groups among `nodes`, in their order. A value that other nodes read as well has no group.

    Nor have matrices that several products share: each product would get a matrix of its own.
    """
    finder = _Finder(graph, {id(node) for node in nodes})
    found = [finder.group(value) for value in finder.values]
    return [group for group in found if group is not None]


class _Finder:
    def __init__(self, graph: ir.Graph, inside: set[int]) -> None:
        products = [site for site in find_sites(graph) if not site.is_look_up]
        users = Counter(id(site.weight) for site in (*products, *find_float_sites(graph)))
        self._inside = inside
        own = [site for site in products if id(site.node) in inside]
        alone = [site for site in own if users[id(site.weight)] == 1]
        self._made_by = {id(site.result): site for site in alone}
        kept = [site for site in find_float_sites(graph) if id(site.node) in inside and users[id(site.weight)] == 1]
        self._at = {id(site.node): site for site in (*alone, *kept)}
        experts = [site for site in find_experts(graph) if id(site.node) in inside and not site.up.is_identity]
        self._experts = {id(site.node): site for site in experts if len(site.up.weight.uses()) == 1}
        read = {site.node: site.activations for site in own}
        read |= {site.node: value for site in experts if (value := site.node.inputs[0]) is not None}
        self.values = list({id(read[node]): read[node] for node in graph if node in read}.values())
        """The values that products or experts read, in the order of their readers."""

    def group(self, value: ir.Value) -> Group | None:
        """The group of the products that read `value`."""
        uses = list(value.uses())
        products = [use.node for use in uses if id(use.node) in self._at]
        experts = [use.node for use in uses if id(use.node) in self._experts and use.idx == 0]
        if value.is_graph_output() or len(products) + len(experts) < len(uses):
            return None
        if any(self._at[id(node)].activations is not value for node in products):
            return None
        widths = [self._at[id(node)].rows.shape[1] for node in products]
        widths += [self._experts[id(node)].up.columns for node in experts]
        found = self._giver(value, widths[0])
        return None if found is None else Group(found[0], value, tuple(products), tuple(experts), found[1])

    def _giver(self, value: ir.Value, size: int) -> tuple[Norm | Rows, NDArray[np.intp]] | None:
        """The giver that makes the channels of `value`, and the giver's channel of each."""
        source = _before_moving(value)
        node = None if source is None else source.producer()
        if source is None or node is None or id(node) not in self._inside:
            return None
        if (norm := scalable_norm_at(node)) is not None and norm.output is source and source is value:
            return norm, np.arange(size)
        if (node.domain, node.op_type) == ("", "Mul"):
            made = [self._rows(each) for each in node.inputs if each is not None]
            rows = next((each for each in made if each is not None and each.count == size), None)
            return None if rows is None else (rows, np.arange(size))
        if (node.domain, node.op_type) == (MICROSOFT, "GroupQueryAttention") and source is node.outputs[0]:
            return self._values_of_heads(node, size)
        return None

    def _values_of_heads(self, node: ir.Node, size: int) -> tuple[Rows, NDArray[np.intp]] | None:
        """The rows that make the values of an attention, and for each of the attention's outputs, the row it mixes."""
        heads, groups = (node.attributes[name].as_int() for name in ("num_heads", "kv_num_heads"))
        length = size // heads
        packed = node.inputs[2] is None
        rows = self._rows(node.inputs[0] if packed else node.inputs[2])
        if rows is None or rows.count != (heads + 2 * groups if packed else groups) * length:
            return None
        head = np.repeat(np.arange(groups), heads // groups)
        channels = (head[:, None] * length + np.arange(length)).reshape(-1)
        return Rows(rows.node, rows.first + rows.count - groups * length, groups * length, rows.bias), channels

    def _rows(self, value: ir.Value | None) -> Rows | None:
        """The rows that make `value`; None if another node reads the value on its way."""
        if value is None or value.is_graph_output() or len(value.uses()) != 1:
            return None
        if (site := self._made_by.get(id(value))) is not None:
            return Rows(site.node, 0, site.rows.shape[0], None if site.bias is None else (site.node, 2))
        node = value.producer()
        if node is None:
            return None
        if node.metadata_props.get(ROLE) in MOVING:
            return self._rows(node.inputs[0])
        if (node.domain, node.op_type) == ("", "Split"):
            return self._part(node, value)
        if (node.domain, node.op_type) == ("", "Add"):
            return self._with_bias(node)
        return None

    def _with_bias(self, node: ir.Node) -> Rows | None:
        for place, other in ((0, 1), (1, 0)):
            bias, rows = constant_of(node.inputs[place]), self._rows(node.inputs[other])
            if bias is not None and rows is not None and rows.bias is None and bias.shape == (rows.count,):
                return Rows(rows.node, rows.first, rows.count, (node, place))
        return None

    def _part(self, node: ir.Node, value: ir.Value) -> Rows | None:
        """The rows for one part of a product's result, which is split along its channels."""
        sizes = [each.shape[-1] if each.shape is not None else None for each in node.outputs]
        given = node.inputs[0]
        rank = len(given.shape) if given is not None and given.shape is not None else 0
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        whole = self._rows(given)
        if whole is None or axis not in (-1, rank - 1) or any(not isinstance(size, int) for size in sizes):
            return None
        place = next(place for place, each in enumerate(node.outputs) if each is value)
        before = sum(size for size in sizes[:place] if isinstance(size, int))
        count = sizes[place]
        assert isinstance(count, int)
        return Rows(whole.node, whole.first + before, count, whole.bias)


def _before_moving(value: ir.Value) -> ir.Value | None:
    """The value before tokens are moved or left out; None where other nodes read it as well."""
    node = value.producer()
    if node is None or node.metadata_props.get(ROLE) not in MOVING:
        return value
    source = node.inputs[0]
    return _before_moving(source) if source is not None and len(source.uses()) == 1 else None


def scale_group(graph: ir.Graph, group: Group, scales: Scales) -> None:
    """Multiply the weights of a group's products by `scales` [channels of the giver], channel by channel.

    The giver is divided by them, so the products give the same results as before.
    """
    spread = Array(scales[group.channels])
    sites = [*group.sites(graph), *group.float_sites(graph)]
    put_rows(graph, [(site, scaled_columns(site.rows, spread)) for site in sites])
    for experts in group.expert_sites(graph):
        put_expert_rows(experts.up, scaled_columns(experts.up.rows, spread))
    inverse = (1 / scales).astype(np.float32)
    if isinstance(group.giver, Norm):
        norm = scalable_norm_at(group.giver.node)
        assert norm is not None
        scale_norm(graph, norm, Array(inverse))
    else:
        _divide_rows(graph, group.giver, inverse)


def _divide_rows(graph: ir.Graph, rows: Rows, inverse: Scales) -> None:
    site = next(site for site in find_sites(graph) if site.node is rows.node)
    factors = np.ones(site.rows.shape[0], np.float32)
    factors[rows.first : rows.first + rows.count] = inverse
    put_rows(graph, [(site, ScaledRows(site.rows, Array(factors)))])
    if rows.bias is not None:
        node, place = rows.bias
        value, bias = node.inputs[place], constant_of(node.inputs[place])
        assert value is not None and bias is not None
        own = inverse if bias.shape == inverse.shape else factors  # the bias has these rows only, or all rows
        scaled = Affine(as_type(bias, ir.DataType.FLOAT), scale=Array(own))
        put_vector(graph, node, place, scaled, f"{value.name}_scaled")
