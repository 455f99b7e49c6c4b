"""The graph of a decoder: embedding, layers, final norm, head."""

from __future__ import annotations

from dataclasses import replace

from drupe_model_builder.composition import Decoder
from drupe_model_builder.dimensions import dims
from drupe_model_builder.graph import GraphBuilder
from drupe_model_builder.parts.attention import Attention, AttentionForm, attention, choose_form, needs_positions
from drupe_model_builder.parts.ends import drop_all_but_last, embed, logits, scaled
from drupe_model_builder.parts.mlp import mlp
from drupe_model_builder.parts.norm import add_and_norm, norm
from drupe_model_builder.parts.state import States
from drupe_model_builder.parts.step import Branch, Step
from drupe_model_builder.rotary_tables import RotaryTables
from drupe_model_builder.sequence_lengths import Lengths
from drupe_model_builder.shared import Shared
from drupe_onnx import ir


class DecoderGraph:
    """One decoder's graph on its way. states: what it carries from call to call, as the target has it.

    Raises ModelError where the target cannot run the decoder.
    """

    def __init__(self, graph: GraphBuilder, decoder: Decoder) -> None:
        self._graph = graph
        self._decoder = decoder
        self._forms: list[AttentionForm] = [choose_form(graph, part) for part in decoder.attentions]
        positions = decoder.embedding.positions is not None or any(
            needs_positions(part, form) for part, form in zip(decoder.attentions, self._forms, strict=True)
        )
        self.states = tuple(
            replace(part.state, head_dim=form.head_size)
            for part, form in zip(decoder.attentions, self._forms, strict=True)
        )
        lengths = Lengths(graph, positions=positions)
        tables = RotaryTables(graph, decoder.context_length, lengths)
        self._shared = Shared(lengths, States(graph, self.states), tables)

    def build(self, *, all_logits: bool) -> ir.Model:
        """The graph, with lazy weights.

        Without `all_logits` only the last token of each row is kept after the last attention, which still reads all
        tokens.
        """
        graph, decoder = self._graph, self._decoder
        lengths = self._shared.lengths
        places = lengths.given_positions if decoder.embedding.positions else None
        x = lengths.arranged(embed(graph, decoder.embedding, lengths.ids, places), "padding/Arranged")
        residual: ir.Value | None = None
        cut = None if all_logits else _last_attending(decoder)
        for number, layer in enumerate(decoder.layers):
            with graph.block(number):
                for half, step in enumerate(layer.steps):
                    x, residual = self._step(f"{layer.name}.step{half}", step, x, residual, step is cut)
        if all_logits and residual is not None:
            residual = lengths.restored(residual, "padding/RestoredResidual")
            x = lengths.restored(x, "padding/Restored")
        x, _ = add_and_norm(graph, decoder.final_norm, x, residual)
        graph.output(logits(graph, decoder.head, decoder.embedding, x), "logits")
        self._shared.states.name_outputs()
        return graph.model("decoder")

    def _step(
        self, name: str, step: Step, x: ir.Value, residual: ir.Value | None, cuts: bool
    ) -> tuple[ir.Value, ir.Value]:
        """The result of a step's branches, and the residual; the next norm adds them.

        x, residual: those of the step before; for the first step, the embedding and None.
        cuts: only the last token of each row is kept.
        """
        graph = self._graph
        if step.before is not None:
            inner, residual = add_and_norm(graph, step.before, x, residual)
        else:
            residual = x if residual is None else graph.node("Add", [x, residual], f"{name}/Residual", dims(x))
            inner = residual
        with graph.block(None):
            index = self._shared.lengths.last_tokens() if cuts else None
        results = [self._branch(branch, inner, index) for branch in step.branches]
        if index is not None:
            residual = drop_all_but_last(graph, residual, index, f"{name}.residual")
        total = results[0]
        for number, other in enumerate(results[1:]):
            total = graph.node("Add", [total, other], f"{name}/Branches{number}", dims(total))
        return total, residual

    def _branch(self, branch: Branch, x: ir.Value, index: ir.Value | None) -> ir.Value:
        """The result of one branch. index: the place of the only token that is kept; None for all."""
        graph, part = self._graph, branch.part
        if branch.before is not None:
            x = norm(graph, branch.before, x)
        if isinstance(part, Attention):
            form = self._forms[self._decoder.attentions.index(part)]
            x = attention(graph, part, form, x, self._shared, index)
            name = part.output.name
        else:
            x = x if index is None else drop_all_but_last(graph, x, index, part.name)
            x = mlp(graph, part, x)
            name = part.name
        if branch.after is not None:
            x = norm(graph, branch.after, x)
        return scaled(graph, x, branch.factor, name)


def _last_attending(decoder: Decoder) -> Step:
    """The last step that reads earlier tokens: behind it, each token is computed on its own."""
    return [step for layer in decoder.layers for step in layer.steps if step.attends][-1]
