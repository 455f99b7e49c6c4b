"""Stages: what of a segment is trained together, and what the runtime gives to it.

Torch does not run every operator. What such an operator makes is given to a stage as the runtime computes it, and so
are the inputs of experts. So a segment has one stage, or one before each of these borders and one behind it. A stage
has to make a hidden state: its targets are those of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from drupe_layerwise import Segment, whole
from drupe_onnx import LAST_TOKEN, MICROSOFT, ROLE, ir
from drupe_recover.experts import LOGITS, QUANTIZED, X
from drupe_recover.operators import OPERATORS
from drupe_recover.trained import NORMS

PRODUCT = "MatMulNBits"


@dataclass
class Stage:
    """wanted: the values that it makes. given: values that the runtime computes for it. nodes: what torch runs."""

    wanted: tuple[ir.Value, ...]
    given: list[ir.Value] = field(default_factory=list)
    nodes: list[ir.Node] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [value.name or "" for value in self.wanted]

    @property
    def gets(self) -> list[str]:
        """The names of what is given."""
        return [value.name or "" for value in self.given]

    @property
    def experts(self) -> list[ir.Node]:
        return [node for node in self.nodes if is_experts(node)]


def stages_of(segment: Segment, results: Sequence[str]) -> list[Stage]:
    """The stages that make the values `results` of a segment, in their order."""
    nodes = segment.nodes
    made = {whole(value).name or "": whole(value) for node in nodes for value in node.outputs}
    depths = _depths(nodes)
    wanted = [made[name] for name in results]
    stages: list[Stage] = []
    done: set[ir.Node] = set()
    for depth in sorted({depths[value] for value in wanted}):
        stage = Stage(tuple(value for value in wanted if depths[value] <= depth))
        _fill(stage, nodes, done)
        done |= set(stage.nodes)
        stages.append(stage)
    return stages


def left_by(segment: Segment, stages: Sequence[Stage]) -> str:
    """The first operator of a segment that keeps something from being trained; "" where all of it is in a stage."""
    held = {node for stage in stages for node in stage.nodes}
    nodes = [node for node in segment.nodes if node not in held]
    left = any(is_product(node) or is_experts(node) or node.op_type in NORMS for node in nodes)
    return next((node.op_type for node in nodes if not is_known(node)), "") if left else ""


def is_experts(node: ir.Node) -> bool:
    return (node.domain, node.op_type) == (MICROSOFT, QUANTIZED)


def is_product(node: ir.Node) -> bool:
    return (node.domain, node.op_type) == (MICROSOFT, PRODUCT)


def is_known(node: ir.Node) -> bool:
    """Whether torch runs a node. Nodes that drop all tokens but the last are passed over."""
    last = node.metadata_props.get(ROLE) == LAST_TOKEN
    return last or is_product(node) or is_experts(node) or (node.domain, node.op_type) in OPERATORS


def _depths(nodes: Sequence[ir.Node]) -> dict[ir.Value, int]:
    """How many borders lie before each value that the nodes make."""
    depths: dict[ir.Value, int] = {}
    for node in nodes:
        before = max((depths.get(whole(value), 0) for value in node.inputs if value is not None), default=0)
        own = before + (is_experts(node) or not is_known(node))
        depths.update((value, own) for value in node.outputs)
    return depths


def _fill(stage: Stage, nodes: Sequence[ir.Node], done: set[ir.Node]) -> None:
    """Find the nodes of a stage and what is given to it. nodes: of the segment. done: those of earlier stages."""
    inside, found = set(nodes), set[ir.Node]()
    given: dict[ir.Value, None] = {}
    waiting = list(stage.wanted)
    while waiting:
        value = whole(waiting.pop())
        node = value.producer()
        if node is None or node in found or node not in inside:
            continue
        if node in done or not is_known(node):
            given[value] = None
            continue
        found.add(node)
        for place, each in enumerate(node.inputs):
            if each is not None and is_experts(node) and place in (X, LOGITS):
                given[whole(each)] = None
            elif each is not None:
                waiting.append(each)
    stage.given = [value for value in given if value.producer() in inside]
    stage.nodes = [node for node in nodes if node in found]
