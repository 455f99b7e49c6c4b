"""The graph of every recipe: embedding, blocks, final norm, head."""

from __future__ import annotations

from drupe_model_builder.attention import Attention, AttentionForm
from drupe_model_builder.embedding_and_head import drop_all_but_last, embed, logits, scaled
from drupe_model_builder.graph import GraphBuilder, dims
from drupe_model_builder.linear import linear
from drupe_model_builder.mlp import gated_mlp
from drupe_model_builder.norms import add_and_norm
from drupe_model_builder.recipe import DecoderRecipe
from drupe_model_builder.sequence_lengths import Lengths
from drupe_onnx import ir


def build(graph: GraphBuilder, recipe: DecoderRecipe, form: AttentionForm, *, all_logits: bool) -> ir.Model:
    """The decoder's graph, with lazy weights. Raises ModelError where the target cannot run it.

    Without `all_logits` only the last token of each row is kept after the last attention, which still reads all tokens.
    """
    lengths = Lengths(graph, positions=not form.rotates)
    attention = Attention(graph, recipe, form, lengths)
    x = lengths.arranged(embed(graph, recipe, lengths.ids), "padding/Arranged")
    residual: ir.Value | None = None
    for layer in range(recipe.layers):
        last = layer == recipe.layers - 1 and not all_logits
        index = lengths.last_tokens() if last else None
        with graph.block(layer):
            x, residual = _block(graph, recipe, attention, x, residual, layer, index)
    if all_logits and residual is not None:
        x, residual = lengths.restored(x, "padding/Restored"), lengths.restored(residual, "padding/RestoredResidual")
    x, _ = add_and_norm(graph, x, residual, recipe.names.final_norm, recipe.norm_epsilon)
    graph.output(logits(graph, recipe, x), "logits")
    attention.name_outputs()
    return graph.model("decoder")


def _block(
    graph: GraphBuilder,
    recipe: DecoderRecipe,
    attention: Attention,
    x: ir.Value,
    residual: ir.Value | None,
    layer: int,
    last_token: ir.Value | None,
) -> tuple[ir.Value, ir.Value]:
    """The result of the block's MLP, and the residual; the next norm adds them.

    x, residual: those of the block before; for the first block, the embedding and None.
    last_token: the place of the only token that is kept; None keeps all tokens.
    """
    names = recipe.names
    input_norm, mlp_norm, output = (
        recipe.tensor(layer, name) for name in (names.input_norm, names.mlp_norm, names.output)
    )
    x, residual = add_and_norm(graph, x, residual, input_norm, recipe.norm_epsilon)
    x = attention(x, layer)
    if last_token is not None:
        x = drop_all_but_last(graph, x, last_token, recipe.tensor(layer, "self_attn"))
        residual = drop_all_but_last(graph, residual, last_token, recipe.tensor(layer, "residual"))
    x = linear(graph, x, [output], output, dims(residual), role="attention.output", bias=recipe.output_bias)
    x = scaled(graph, x, recipe.residual_scale, output)
    x, residual = add_and_norm(graph, x, residual, mlp_norm, recipe.norm_epsilon)
    x = scaled(graph, gated_mlp(graph, recipe, x, layer), recipe.residual_scale, recipe.tensor(layer, "mlp"))
    return x, residual
