"""Step and Layer: where norms and residuals stand around mixers and MLP."""

from __future__ import annotations

from collections.abc import Iterator

from drupe.api import Record
from drupe_model_builder.parts.altup import AltUp
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.borrowed_attention import BorrowedAttention
from drupe_model_builder.parts.expert_attention import ExpertAttention
from drupe_model_builder.parts.experts import Experts
from drupe_model_builder.parts.gated_delta import GatedDelta
from drupe_model_builder.parts.gated_recurrence import GatedRecurrence
from drupe_model_builder.parts.latent_attention import LatentAttention
from drupe_model_builder.parts.laurel import Laurel
from drupe_model_builder.parts.layer_inputs import LayerInput
from drupe_model_builder.parts.lightning_attention import LightningAttention
from drupe_model_builder.parts.mamba1 import Mamba1
from drupe_model_builder.parts.mamba2 import Mamba2
from drupe_model_builder.parts.mlp import MLP
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.rows import Rows
from drupe_model_builder.parts.shared_block import SharedBlock
from drupe_model_builder.parts.short_conv import ShortConv

Mixer = (
    Attention
    | LatentAttention
    | BorrowedAttention
    | ExpertAttention
    | ShortConv
    | GatedDelta
    | GatedRecurrence
    | LightningAttention
    | Mamba1
    | Mamba2
)
"""A part that reads the tokens before the current one."""
Part = Mixer | MLP | Experts | Laurel | LayerInput


class Branch(Record):
    """One way from a step's input to its result. before, after: norms of its own. factor: on its result.

    later: how many steps later in the layer its result joins the residual: steps between do not read it.
    """

    part: Part
    before: Norm | None = None
    after: Norm | None = None
    factor: float = 1.0
    later: int = 0

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (self.before, self.part, self.after):
            if part is not None:
                yield from part.tensors()


class Step(Record):
    """residual + the sum of the branches, each a function of the residual's norm.

    before: the norm in front of all branches; None where the branches read the residual, or have norms of their own.
    after: a norm on the sum of the branches. factor: on the result, the residual included.
    aside: its result is added to what the branches read, and not to the residual. closing: a norm on the result, the
    residual included. residual: what the residual is multiplied with: a tensor [hidden].
    """

    branches: tuple[Branch, ...]
    before: Norm | None = None
    after: Norm | None = None
    factor: float = 1.0
    aside: SharedBlock | None = None
    closing: Norm | None = None
    residual: Rows | None = None

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for part in (self.before, self.aside):
            if part is not None:
                yield from part.tensors()
        for branch in self.branches:
            yield from branch.tensors()
        for norm in (self.after, self.closing):
            if norm is not None:
                yield from norm.tensors()
        if self.residual is not None:
            yield self.residual.tensor, self.residual.shape

    @property
    def parts(self) -> Iterator[Part]:
        """The parts, in the order in which they are computed."""
        if self.aside is not None:
            yield from (self.aside.attention, self.aside.mlp)
        yield from (branch.part for branch in self.branches)

    @property
    def keeps(self) -> bool:
        """Whether a branch keeps something of every token for later ones."""
        return any(isinstance(branch.part, Mixer) and branch.part.states for branch in self.branches)


class Layer(Record):
    """A decoder's block. name: the prefix of its tensors and nodes, without the last dot.

    factor: a tensor [1] that the block's result is multiplied with, the residual included. altup: how the block takes
    part in several streams; None for one stream.
    """

    name: str
    steps: tuple[Step, ...]
    factor: str | None = None
    altup: AltUp | None = None

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The checkpoint's tensors, with their shapes."""
        for step in self.steps:
            yield from step.tensors()
        if self.factor is not None:
            yield self.factor, (1,)
        if self.altup is not None:
            yield from self.altup.tensors()


def step(part: Part, *, before: Norm | None = None, after: Norm | None = None, factor: float = 1.0) -> Step:
    """One part, with a norm before it and one on its result where these are given. factor: on the result."""
    return Step((Branch(part, after=after, factor=factor),), before=before)


def pre(norm: Norm, part: Part, factor: float = 1.0) -> Step:
    """A norm before the part, as in Llama."""
    return Step((Branch(part, factor=factor),), before=norm)


def post(part: Part, norm: Norm) -> Step:
    """A norm on the result only, as in OLMo 2."""
    return Step((Branch(part, after=norm),))


def both(before: Norm, part: Part, after: Norm) -> Step:
    """A norm before the part and one on its result, as in Gemma 2."""
    return Step((Branch(part, after=after),), before=before)


def side_by_side(norm: Norm | None, *branches: Branch) -> Step:
    """Parts side by side, after one norm (Phi), or each after its own (GPT-NeoX)."""
    return Step(branches, before=norm)
