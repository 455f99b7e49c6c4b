"""The graph of a decoder: embedding, layers, final norm, head."""

from __future__ import annotations

from collections.abc import Sequence

from drupe_decoding import HIDDEN_STATES, LOGITS
from drupe_model_builder.composition import Decoder
from drupe_model_builder.dimensions import dims
from drupe_model_builder.graph import GraphBuilder
from drupe_model_builder.parts.altup import active, corrected, merged, predicted, spread
from drupe_model_builder.parts.attention import Attention, AttentionForm, attention, choose_form, needs_positions
from drupe_model_builder.parts.borrowed_attention import BorrowedAttention, borrowed_attention
from drupe_model_builder.parts.chunks import ChunkMasks
from drupe_model_builder.parts.distance import DistanceBiases
from drupe_model_builder.parts.ends import drop_all_but_last, embed, logits, scaled, widened
from drupe_model_builder.parts.expert_attention import ExpertAttention, expert_attention
from drupe_model_builder.parts.expert_halves import expert_halves
from drupe_model_builder.parts.experts import Experts, experts
from drupe_model_builder.parts.gated_delta import GatedDelta, gated_delta
from drupe_model_builder.parts.gated_recurrence import GatedRecurrence, gated_recurrence
from drupe_model_builder.parts.latent_attention import LatentAttention, latent_attention, wants_positions
from drupe_model_builder.parts.laurel import Laurel, laurel
from drupe_model_builder.parts.layer_inputs import LayerInput, layer_input, layer_inputs
from drupe_model_builder.parts.lightning_attention import LightningAttention, lightning_attention
from drupe_model_builder.parts.linear import linear
from drupe_model_builder.parts.mamba1 import Mamba1, mamba1
from drupe_model_builder.parts.mamba2 import Mamba2, mamba2
from drupe_model_builder.parts.mlp import MLP, mlp
from drupe_model_builder.parts.norm import add_and_norm, norm
from drupe_model_builder.parts.shared_block import SharedBlock
from drupe_model_builder.parts.short_conv import ShortConv, short_conv
from drupe_model_builder.parts.state import KeyValueState, States
from drupe_model_builder.parts.step import Branch, Layer, Step
from drupe_model_builder.parts.weighted_inputs import experts_of_weighted_inputs
from drupe_model_builder.parts.window import WindowBiases
from drupe_model_builder.rotary_tables import RotaryTables
from drupe_model_builder.sequence_lengths import Lengths
from drupe_model_builder.shared import Shared
from drupe_onnx import ir

POSITIONED = BorrowedAttention | ExpertAttention | GatedRecurrence
"""Parts that need the tokens' positions outside attention's operator."""


class DecoderGraph:
    """One decoder's graph on its way.

    Raises ModelError where the target cannot run the decoder.
    """

    def __init__(self, graph: GraphBuilder, decoder: Decoder) -> None:
        self._graph = graph
        self._decoder = decoder
        self._forms: list[AttentionForm] = [choose_form(graph, part) for part in decoder.attentions]
        positions = decoder.embedding.positions is not None or any(
            needs_positions(part, form) for part, form in zip(decoder.attentions, self._forms, strict=True)
        )
        positions = positions or any(isinstance(part, POSITIONED) for part in decoder.parts)
        positions = positions or any(
            isinstance(part, LatentAttention) and wants_positions(graph, part) for part in decoder.parts
        )
        sizes = {part.states[0]: form.head_size for part, form in zip(decoder.attentions, self._forms, strict=True)}
        caches = (state for state in decoder.states if isinstance(state, KeyValueState))
        self.head_size = next((sizes.get(state, state.head_dim) for state in caches), None)
        """Elements of a head in the caches of the first layer that has some."""
        carried = decoder.head is not None
        lengths = Lengths(graph, positions=positions, recurrent=decoder.has_recurrence, past=carried)
        self._shared = Shared(
            lengths,
            States(graph, decoder.states, sizes, lengths.ids, carried=carried),
            RotaryTables(graph, decoder.context_length, lengths),
            DistanceBiases(graph, lengths),
            WindowBiases(graph, lengths),
            ChunkMasks(graph, lengths),
        )
        self._dropped: ir.Value | None = None
        """The place of the only token that is left; None before the others are dropped."""
        self._layer_inputs: Sequence[ir.Value] = ()
        self._streams: ir.Value | None = None
        """The hidden states of decoders with several; None with one."""
        self._later: list[tuple[int, ir.Value]] = []
        """Results of the current layer that join the residual behind a later step, with the number of that step."""
        self._embedded: ir.Value | None = None
        """The first hidden states, which shared blocks read again."""

    def build(self, *, all_logits: bool) -> ir.Model:
        """The graph, with lazy weights.

        Without `all_logits` only the last token of each row is kept after the last attention, which still reads all
        tokens. Without a head the graph gives the hidden states of every token, and neither takes nor gives caches.
        """
        graph, decoder = self._graph, self._decoder
        lengths = self._shared.lengths
        places = lengths.given_positions if decoder.embedding.positions else None
        embedded = embed(graph, decoder.embedding, lengths.ids, places)
        x = self._embedded = lengths.arranged(embedded, "padding/Arranged")
        residual: ir.Value | None = None
        if decoder.layer_inputs is not None:
            given = layer_inputs(graph, decoder.layer_inputs, lengths.ids, embedded)
            self._layer_inputs = [
                lengths.arranged(each, f"padding/ArrangedInput{number}") for number, each in enumerate(given)
            ]
        if decoder.streams is not None:
            self._streams = spread(graph, decoder.streams, x)
        every_token = all_logits or decoder.head is None
        cut = None if every_token else _last_keeping(decoder)
        for number, layer in enumerate(decoder.layers):
            last_token = lengths.last_tokens() if any(step is cut for step in layer.steps) else None
            with graph.block(number):
                x, residual = self._layer(layer, x, residual, cut, last_token)
        if decoder.streams is not None and self._streams is not None:
            x, residual = merged(graph, decoder.streams, self._streams), None
        if every_token:
            x = lengths.restored(x, "padding/Restored")
            if residual is not None:
                residual = lengths.restored(residual, "padding/RestoredResidual")
        x, _ = add_and_norm(graph, decoder.final_norm, x, residual)
        if decoder.projection is not None:
            x = linear(graph, decoder.projection, x, "projection")
        if decoder.head is None:
            graph.output(widened(graph, x, "last_hidden_state"), HIDDEN_STATES)
        else:
            graph.output(logits(graph, decoder.head, decoder.embedding, x), LOGITS)
            self._shared.states.name_outputs()
        return graph.model("decoder")

    def _layer(
        self,
        layer: Layer,
        x: ir.Value,
        residual: ir.Value | None,
        cut: Step | None,
        last_token: ir.Value | None,
    ) -> tuple[ir.Value, ir.Value | None]:
        """The result of a layer's last step, and the residual.

        x, residual: those of the layer before. cut: the step in which all tokens but the last one are dropped.
        last_token: its place, where it is a step of this layer.
        """
        graph, altup, streams = self._graph, layer.altup, self._streams
        if altup is not None and streams is not None:
            streams = predicted(graph, altup, streams)
            x, residual = active(graph, altup, streams, altup.name), None
        for half, step in enumerate(layer.steps):
            index = last_token if step is cut else None
            x, residual = self._step(layer.name, half, step, x, residual, index)
        if layer.factor is not None:
            inputs = [self._summed(layer.name, x, residual), graph.vector(layer.factor)]
            x, residual = graph.node("Mul", inputs, f"{layer.name}/Factor", dims(x)), None
        if altup is not None and streams is not None:
            x, residual = self._summed(layer.name, x, residual), None
            streams = streams if last_token is None else drop_all_but_last(graph, streams, last_token, altup.name)
            self._streams = corrected(graph, altup, streams, x, self._input_of(altup.given))
        return x, residual

    def _step(
        self, layer: str, number: int, step: Step, x: ir.Value, residual: ir.Value | None, index: ir.Value | None
    ) -> tuple[ir.Value, ir.Value | None]:
        """The result of a step's branches, and the residual; the next norm adds them.

        layer, number: the prefix of the layer, and which of its steps it is. x, residual: those of the step before; for
        the first step, the embedding and None. index: the place of the only token of each row that is kept; None for
        all.
        """
        graph, name = self._graph, f"{layer}.step{number}"
        if step.aside is not None:
            residual = self._summed(name, x, residual)
            aside = self._aside(step.aside, residual)
            inner = graph.node("Add", [residual, aside], f"{name}/Aside", dims(residual))
            inner = inner if step.before is None else norm(graph, step.before, inner)
        elif step.before is not None:
            inner, residual = add_and_norm(graph, step.before, x, residual)
        else:
            residual = x if residual is None else graph.node("Add", [x, residual], f"{name}/Residual", dims(x))
            inner = residual
        if index is not None:
            self._later = [
                (due, drop_all_but_last(graph, each, index, f"{name}.later{due}")) for due, each in self._later
            ]
        results = []
        for branch in step.branches:
            result = self._branch(branch, inner, index)
            if branch.later:
                self._later.append((number + branch.later, result))
            else:
                results.append(result)
        results += [each for due, each in self._later if due == number]
        self._later = [(due, each) for due, each in self._later if due != number]
        if index is not None:
            residual = drop_all_but_last(graph, residual, index, f"{name}.residual")
            self._dropped = index
        if step.residual is not None:
            vector = graph.vector(step.residual.tensor)
            residual = graph.node("Mul", [residual, vector], f"{name}/ResidualFactor", dims(residual))
        total = results[0]
        for number, other in enumerate(results[1:]):
            total = graph.node("Add", [total, other], f"{name}/Branches{number}", dims(total))
        if step.after is not None:
            total = norm(graph, step.after, total)
        if step.closing is not None:
            return add_and_norm(graph, step.closing, total, residual)[0], None
        if step.factor == 1.0:
            return total, residual
        return scaled(graph, self._summed(name, total, residual), step.factor, name), None

    def _aside(self, part: SharedBlock, x: ir.Value) -> ir.Value:
        """The result of a shared block, for all tokens."""
        graph, embedded = self._graph, self._embedded
        assert embedded is not None
        wide = [*dims(x)[:-1], part.norm.shape[0]]
        both = graph.node("Concat", [x, embedded], f"{part.name}/Both", wide, axis=-1)
        form = self._forms[self._decoder.attentions.index(part.attention)]
        out = attention(graph, part.attention, form, norm(graph, part.norm, both), self._shared, None)
        out = mlp(graph, part.mlp, norm(graph, part.mlp_norm, out))
        return linear(graph, part.output, out, "shared.output")

    def _summed(self, name: str, x: ir.Value, residual: ir.Value | None) -> ir.Value:
        """The result of a step with the residual. name: the prefix of the node."""
        return x if residual is None else self._graph.node("Add", [x, residual], f"{name}/Residual", dims(x))

    def _branch(self, branch: Branch, x: ir.Value, index: ir.Value | None) -> ir.Value:
        """The result of one branch. index: the place of the only token that is kept; None for all."""
        graph, part = self._graph, branch.part
        if branch.before is not None:
            x = norm(graph, branch.before, x)
        if isinstance(part, Attention):
            form = self._forms[self._decoder.attentions.index(part)]
            x = attention(graph, part, form, x, self._shared, index)
            name = part.output.name
        elif isinstance(part, LatentAttention):
            x, name = latent_attention(graph, part, x, self._shared, index), part.output.name
        elif isinstance(part, ExpertAttention):
            x, name = expert_attention(graph, part, x, self._shared, index), part.name
        elif isinstance(part, ShortConv):
            x, name = short_conv(graph, part, x, self._shared, index), part.output.name
        elif isinstance(part, GatedDelta):
            x, name = gated_delta(graph, part, x, self._shared, index), part.output.name
        elif isinstance(part, GatedRecurrence):
            x, name = gated_recurrence(graph, part, x, self._shared, index), part.output.name
        elif isinstance(part, LightningAttention):
            x, name = lightning_attention(graph, part, x, self._shared, index), part.output.name
        elif isinstance(part, Mamba1):
            x, name = mamba1(graph, part, x, self._shared, index), part.output.name
        elif isinstance(part, Mamba2):
            x, name = mamba2(graph, part, x, self._shared, index), part.output.name
        elif isinstance(part, BorrowedAttention):
            x, name = borrowed_attention(graph, part, x, self._shared, self._dropped), part.output.name
        elif isinstance(part, LayerInput):
            x, name = layer_input(graph, part, x, self._input_of(part)), part.name
        else:
            x = x if index is None else drop_all_but_last(graph, x, index, part.name)
            x, name = self._of_each_token(part, x), part.name
        if branch.after is not None:
            x = norm(graph, branch.after, x)
        return scaled(graph, x, branch.factor, name)

    def _of_each_token(self, part: MLP | Experts | Laurel, x: ir.Value) -> ir.Value:
        """The result of a part that works on each token alone."""
        if isinstance(part, Laurel):
            return laurel(self._graph, part, x)
        if isinstance(part, MLP):
            return mlp(self._graph, part, x)
        if part.weighs_input:
            return experts_of_weighted_inputs(self._graph, part, x)
        return (experts if part.activation is None else expert_halves)(self._graph, part, x)

    def _input_of(self, part: LayerInput) -> ir.Value:
        """The layer's input for the tokens that are left."""
        given = self._layer_inputs[part.layer]
        return given if self._dropped is None else drop_all_but_last(self._graph, given, self._dropped, part.name)


def _last_keeping(decoder: Decoder) -> Step:
    """The last step that keeps something of every token: behind it, only the last token is needed."""
    return [step for layer in decoder.layers for step in layer.steps if step.keeps][-1]
