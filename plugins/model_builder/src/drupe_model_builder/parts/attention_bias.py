"""AttentionBiases: what is added to the products of queries and keys, made once for all layers that have the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from drupe_model_builder.graph import GraphBuilder
    from drupe_model_builder.sequence_lengths import Lengths
    from drupe_onnx import ir

Setting = TypeVar("Setting", bound=Hashable)


class AttentionBiases(ABC, Generic[Setting]):
    """The biases of one kind in one graph; layers with equal settings share one."""

    def __init__(self, graph: GraphBuilder, lengths: Lengths) -> None:
        self._graph = graph
        self._lengths = lengths
        self._made: dict[Setting, ir.Value] = {}

    def of(self, setting: Setting) -> ir.Value:
        """The bias of a setting."""
        if setting not in self._made:
            with self._graph.block(None):  # no block's own: later ones read it, too
                self._made[setting] = self._bias(setting)
        return self._made[setting]

    @abstractmethod
    def _bias(self, setting: Setting) -> ir.Value:
        """Build a bias in the activations' type."""
