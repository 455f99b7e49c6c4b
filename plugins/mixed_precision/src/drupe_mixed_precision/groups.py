"""Groups: sites that get one scheme together, and their place in the model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from drupe.api import Record
from drupe_nbits import ExpertSite, Site, find_experts, find_sites
from drupe_onnx import BLOCK, ir
from drupe_packed import parts_of

OUTPUT = "attention.output"
NORMS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})


class Group(Record):
    """Sites that share a matrix, or a range of its rows, as a tied embedding and head do. Most groups have one site.

    block: the decoder block, None outside the blocks. is_first: whether hidden states are small before the block: it is
    the first one, and its results are added without a norm of their own. rows: the range [first, last); None for all
    rows. share: the share of these rows in the quality that the whole matrix costs.
    """

    sites: tuple[Site, ...]
    block: int | None
    is_first: bool = False
    rows: tuple[int, int] | None = None
    share: float = 1.0

    @property
    def name(self) -> str:
        return self.sites[0].name

    @property
    def roles(self) -> frozenset[str]:
        """The roles of the sites."""
        return frozenset(site.role for site in self.sites)

    @property
    def is_looked_up(self) -> bool:
        """Whether tokens are looked up in its matrix."""
        return any(site.is_look_up for site in self.sites)

    @property
    def is_multiplied(self) -> bool:
        """Whether a product uses its matrix."""
        return not all(site.is_look_up for site in self.sites)

    @property
    def bits(self) -> int | None:
        """The bits that an earlier pass has assigned; None where no pass has."""
        return next((site.scheme.bits for site in self.sites if site.scheme is not None), None)

    @property
    def shape(self) -> tuple[int, int]:
        """[N, K] of its rows."""
        n, k = self.sites[0].rows.shape
        first, last = self.rows or (0, n)
        return last - first, k

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def whole_size(self) -> int:
        """Weights of the whole matrix."""
        return math.prod(self.sites[0].rows.shape)

    @property
    def scale_bytes(self) -> int:
        return self.sites[0].dtype.bitwidth // 8


class Experts(Record):
    """The experts of a node, which get one scheme together. block: the decoder block, None outside the blocks."""

    site: ExpertSite
    block: int | None

    @property
    def name(self) -> str:
        return self.site.name


def experts_of(graph: ir.Graph) -> list[Experts]:
    """The experts of every node of a graph, in its order."""
    return [Experts(site, _block(site.node)) for site in find_experts(graph)]


def groups_of(graph: ir.Graph) -> list[Group]:
    """Every group of a graph, in the graph's order, without matrices that are already quantized in the checkpoint."""
    together: dict[object, list[Site]] = {}
    for site in find_sites(graph):
        if not parts_of(site.rows):
            together.setdefault(site.rows, []).append(site)
    first = 0 if starts_small(graph) else None
    found = ((tuple(sites), _first_block(sites)) for sites in together.values())
    return [Group(sites, block, block is not None and block == first) for sites, block in found]


def starts_small(graph: ir.Graph) -> bool:
    """Whether hidden states are small before the first block, compared with what it adds to them.

    They are not where a norm gives each result its size before it is added (Gemma 2 and 3, OLMo 2).
    """
    results = (site.result for site in find_sites(graph) if site.role == OUTPUT and _block(site.node) == 0)
    return not any(user.op_type in NORMS for result in results for user in result.consumers())


def _first_block(sites: Sequence[Site]) -> int | None:
    return next((number for site in sites if (number := _block(site.node)) is not None), None)


def _block(node: ir.Node) -> int | None:
    text = node.metadata_props.get(BLOCK, "")
    return int(text) if text.isdigit() else None
