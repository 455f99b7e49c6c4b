"""The residual stream of a decoder: all nodes that read or write hidden states, found from the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from drupe.api import ModelError
from drupe_equalize.norms import RMS_NORMS, Norm, norm_at
from drupe_nbits import ExpertSite, Site, find_experts, find_float_sites, find_sites
from drupe_onnx import MICROSOFT, constant_of, ir

PASSING = {"Cast", "Identity", "GatherND"}
"""Operators that do not change a token's vector: they change its type, or leave tokens out."""
SKIP_SUM = 3
"""The output of SkipSimplifiedLayerNormalization that is the residual."""


@dataclass
class Stream:
    """The nodes that write and read hidden states.

    look_ups: embeddings. writers: products whose results are added up. biases: vectors [H] that are added, each as the
    node that adds it and the place of the input. readers: products that read hidden states, each with the norm before
    it; None where there is no norm. experts, expert_readers: nodes with experts whose results are added up, and those
    that read hidden states.
    """

    look_ups: list[Site] = field(default_factory=list)
    writers: list[Site] = field(default_factory=list)
    biases: list[tuple[ir.Node, int]] = field(default_factory=list)
    readers: list[tuple[Site, Norm | None]] = field(default_factory=list)
    experts: list[ExpertSite] = field(default_factory=list)
    expert_readers: list[tuple[ExpertSite, Norm | None]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Elements of a hidden state."""
        return self.look_ups[0].rows.shape[1]

    @property
    def norms(self) -> list[Norm]:
        behind = [norm for _, norm in (*self.readers, *self.expert_readers)]
        return list({id(norm.node): norm for norm in behind if norm is not None}.values())


def find_stream(graph: ir.Graph) -> Stream:
    """The stream that begins at a graph's embedding.

    Raises ModelError where the graph has none, or where hidden states reach a node that a rotation cannot pass through.
    """
    sites = find_sites(graph)
    found = _Search([*sites, *find_float_sites(graph)], find_experts(graph))
    for site in sites:
        if site.is_look_up:
            found.take(site.result)
    while found.waiting:
        found.follow(found.waiting.pop())
    if not found.stream.look_ups:
        raise ModelError("the graph has no embedding, so there are no hidden states to rotate")
    return found.stream


class _Search:
    def __init__(self, sites: Sequence[Site], experts: Sequence[ExpertSite]) -> None:
        self.stream = Stream()
        self.waiting: list[ir.Value] = []
        self._made_by = {id(site.result): site for site in sites}
        self._site_of = {id(site.node): site for site in sites}
        self._experts = {id(site.node): site for site in experts}
        self._seen: set[int] = set()

    def take(self, value: ir.Value) -> None:
        """Note that `value` holds hidden states: the nodes that make and read it will be followed."""
        if id(value) not in self._seen:
            self._seen.add(id(value))
            self.waiting.append(value)

    def follow(self, value: ir.Value) -> None:
        if value.is_graph_output():
            raise _refused(f"the hidden states '{value.name}' are an output of the graph, which would be rotated too")
        self._back(value)
        for use in value.uses():
            self._on(value, use.node, use.idx)

    def _back(self, value: ir.Value) -> None:
        """Follow the node that makes `value`."""
        if (site := self._made_by.get(id(value))) is not None:
            (self.stream.look_ups if site.is_look_up else self.stream.writers).append(site)
            if site.bias is not None:
                self._bias(site.node, 2)
            return
        node = value.producer()
        if node is None:
            raise _refused(f"the hidden states '{value.name}' are an input of the graph, which would not be rotated")
        if (experts := self._experts.get(id(node))) is not None:
            self.stream.experts.append(experts)
        elif _is(node, MICROSOFT, "SkipSimplifiedLayerNormalization") and value is node.outputs[SKIP_SUM]:
            self._skip(node)
        elif _passes(node, 0):
            self._take_input(node, 0)
        elif _is(node, "", "Add"):
            self._sum(node)
        elif _is(node, "", "Mul") and (place := _scaled_place(node)) is not None:
            self._take_input(node, place)
        else:
            raise _refused(
                f"the node '{node.name}' ({node.op_type}) makes hidden states, and its output cannot be rotated"
            )

    def _on(self, value: ir.Value, node: ir.Node, place: int) -> None:
        """Follow the nodes that read `value`."""
        if (site := self._site_of.get(id(node))) is not None and site.activations is value:
            self.stream.readers.append((site, None))
        elif (experts := self._experts.get(id(node))) is not None and place == 0:
            self.stream.expert_readers.append((experts, None))
        elif norm := norm_at(node):
            if _is(node, MICROSOFT, "SkipSimplifiedLayerNormalization"):
                self._skip(node)
            elif place != 0:
                raise _no_way(node)
            self._normed(norm, norm.output)
        elif _passes(node, place) or _is(node, "", "Add") or (_is(node, "", "Mul") and _scaled_place(node) == place):
            self.take(node.outputs[0])
        else:
            raise _no_way(node)

    def _normed(self, norm: Norm, value: ir.Value) -> None:
        """Follow the nodes that read normed hidden states. They must reach products unchanged."""
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        if value.is_graph_output():
            raise _refused(f"the hidden states '{value.name}' are an output of the graph, which would be rotated too")
        for use in value.uses():
            site = self._site_of.get(id(use.node))
            if site is not None and site.activations is value:
                self.stream.readers.append((site, norm))
            elif (experts := self._experts.get(id(use.node))) is not None and use.idx == 0:
                self.stream.expert_readers.append((experts, norm))
            elif _passes(use.node, use.idx):
                self._normed(norm, use.node.outputs[0])
            else:
                raise _no_way(use.node)

    def _skip(self, node: ir.Node) -> None:
        """Follow a norm that first adds two hidden states and a bias."""
        self._take_input(node, 0)
        self._take_input(node, 1)
        if len(node.inputs) > SKIP_SUM and node.inputs[SKIP_SUM] is not None:
            self._bias(node, SKIP_SUM)
        if len(node.outputs) > SKIP_SUM:
            self.take(node.outputs[SKIP_SUM])

    def _sum(self, node: ir.Node) -> None:
        for place, value in enumerate(node.inputs):
            if constant_of(value) is None:
                self._take_input(node, place)
            else:
                self._bias(node, place)

    def _bias(self, node: ir.Node, place: int) -> None:
        if all(node is not other for other, _ in self.stream.biases):
            self.stream.biases.append((node, place))

    def _take_input(self, node: ir.Node, place: int) -> None:
        value = node.inputs[place]
        assert value is not None
        self.take(value)


def _passes(node: ir.Node, place: int) -> bool:
    """Whether a node passes on the vectors of its input at `place` without changing their length."""
    if node.op_type not in PASSING or place != 0:
        return False
    before, after = (
        None if value is None or value.shape is None else value.shape for value in (node.inputs[0], node.outputs[0])
    )
    return before is not None and after is not None and before[-1] == after[-1]


def _is(node: ir.Node, domain: str, operator: str) -> bool:
    return (node.domain, node.op_type) == (domain, operator)


def _scaled_place(node: ir.Node) -> int | None:
    """The place of the input that a node multiplies with a constant number, or with one number for each token.

    None for other products.
    """
    for place, factor in ((0, 1), (1, 0)):
        value = node.inputs[factor]
        constant, shape = constant_of(value), None if value is None else value.shape
        if (constant is not None and constant.size == 1) or (shape is not None and len(shape) and shape[-1] == 1):
            return place
    return None


def _no_way(node: ir.Node) -> ModelError:
    if node.op_type in ("LayerNormalization", "SkipLayerNormalization"):
        return _refused(
            f"the norm '{node.name}' ({node.op_type}) subtracts a mean, which a rotation of the hidden states changes"
        )
    if (node.domain, node.op_type) in RMS_NORMS:
        return _refused(
            f"the weight of the norm '{node.name}' ({node.op_type}) cannot be folded into the next matrices"
        )
    return _refused(
        f"the node '{node.name}' ({node.op_type}) reads hidden states, and a rotation cannot pass through it"
    )


def _refused(what: str) -> ModelError:
    return ModelError(what, cure="leave --prepare rotate out for this model")
