"""Decoder: a decoder as it is composed of parts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from drupe.api import Record, replace
from drupe_model_builder.parts.altup import Streams
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.borrowed_attention import BorrowedAttention
from drupe_model_builder.parts.ends import Embedding, Head
from drupe_model_builder.parts.expert_attention import ExpertAttention
from drupe_model_builder.parts.experts import Experts
from drupe_model_builder.parts.latent_attention import LatentAttention
from drupe_model_builder.parts.layer_inputs import LayerInputs
from drupe_model_builder.parts.linear import Linear
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.state import KeyValueState, State
from drupe_model_builder.parts.step import Layer, Mixer, Part


class Decoder(Record):
    """A decoder: an embedding, layers, a final norm, and a head; without a head it gives the hidden states.

    projection: what the hidden states go through behind the final norm, in a family without a head.

    model_type: the name of its family. context_length: the most tokens that it reads. layer_inputs: where layers have
    inputs of their own. streams: where layers have an `altup`. base: the prefix of all tensors but the head's.
    ignored: patterns of names of tensors that the checkpoint may hold and that take no part (vision towers, layers for
    several tokens at once).
    aliases: patterns of other names that some checkpoints have for tensors, with what they are replaced by.
    zeros: patterns of names of tensors that are zeros where the checkpoint lacks them.
    """

    model_type: str
    context_length: int
    embedding: Embedding
    layers: tuple[Layer, ...]
    final_norm: Norm
    head: Head | None
    layer_inputs: LayerInputs | None = None
    projection: Linear | None = None
    streams: Streams | None = None
    base: str = "model."
    ignored: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    zeros: tuple[str, ...] = ()

    def without_head(self) -> Decoder:
        """The decoder that gives the last hidden states. The checkpoint may hold a head, which takes no part."""
        if self.head is None:
            return self
        own = [] if self.head.layer is None else [name for name, _ in self.head.layer.tensors()]
        unread = [re.escape(name) for name in (self.head.matrix, self.head.bias, *own) if name is not None]
        return replace(self, head=None, ignored=(*self.ignored, *unread))

    @property
    def vocab_size(self) -> int:
        return self.embedding.vocab_size

    @property
    def hidden_size(self) -> int:
        return self.embedding.hidden_size

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """The attention of every layer that has one, in order."""
        return tuple(part for part in self.parts if isinstance(part, Attention))

    @property
    def both_ways(self) -> bool:
        """Whether a token reads later ones."""
        kinds = Attention | LatentAttention | BorrowedAttention | ExpertAttention
        return any(isinstance(part, kinds) and part.both_ways for part in self.parts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of all layers, in order."""
        return tuple(part for layer in self.layers for step in layer.steps for part in step.parts)

    @property
    def experts(self) -> tuple[Experts, ...]:
        """The experts of every layer that has some, in order."""
        return tuple(part for part in self.parts if isinstance(part, Experts))

    @property
    def states(self) -> tuple[State, ...]:
        """What it carries from one call to the next."""
        return tuple(state for part in self.parts if isinstance(part, Mixer) for state in part.states)

    @property
    def layer_count(self) -> int:
        """How many layers runtimes count: some layers have two attentions, whose caches have a number each."""
        return max([len(self.layers), *(state.layer + 1 for state in self.states)])

    @property
    def has_recurrence(self) -> bool:
        """Whether a state is a sum over all tokens before, or the last of them: later padding would get into it."""
        return any(not isinstance(state, KeyValueState) for state in self.states)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that the checkpoint must hold, with its shape. A tied head is the embedding's tensor."""
        return dict(self._all_tensors())

    def _all_tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from self.embedding.tensors()
        if self.layer_inputs is not None:
            yield from self.layer_inputs.tensors()
        if self.streams is not None:
            yield from self.streams.tensors()
        for layer in self.layers:
            yield from layer.tensors()
        yield from self.final_norm.tensors()
        if self.projection is not None:
            yield from self.projection.tensors()
        if self.head is not None:
            yield from self.head.tensors(self.vocab_size, self.hidden_size)
