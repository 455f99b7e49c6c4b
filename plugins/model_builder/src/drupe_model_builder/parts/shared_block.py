"""SharedBlock: attention and an MLP whose matrices several layers use, beside a mixer of the layer's own (Zamba 2)."""

from __future__ import annotations

from collections.abc import Iterator

from drupe.api import Record
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.mlp import MLP
from drupe_model_builder.parts.norm import Norm


class SharedBlock(Record):
    """output(mlp(mlp_norm(attention(norm([x, e]))))), where e is the embedding: nothing is added on the way.

    name: the prefix of its nodes. `output` is the layer's own.
    """

    name: str
    norm: Norm
    attention: Attention
    mlp_norm: Norm
    mlp: MLP
    output: Linear

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (self.norm, self.attention, self.mlp_norm, self.mlp, self.output):
            yield from part.tensors()
