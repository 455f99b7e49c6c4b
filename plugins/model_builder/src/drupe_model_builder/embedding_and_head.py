"""Both ends of the graph: from token ids to the first hidden states, and from the last ones to logits."""

from __future__ import annotations

from drupe_model_builder.graph import Dims, GraphBuilder, dims
from drupe_model_builder.recipe import DecoderRecipe
from drupe_model_builder.sequence_lengths import BATCH, SEQUENCE
from drupe_onnx import LAST_TOKEN, MICROSOFT, ir


def embed(graph: GraphBuilder, recipe: DecoderRecipe, ids: ir.Value) -> ir.Value:
    """Rows of the embedding [vocabulary, hidden]: [batch, sequence, hidden]."""
    table = graph.matrix(recipe.names.embedding)
    name = recipe.names.embedding.removesuffix(".weight")
    shape: Dims = [BATCH, SEQUENCE, recipe.hidden_size]
    rows = graph.node("Gather", [table, ids], f"{name}/Gather", shape, dtype=table.dtype, role="embedding", axis=0)
    return scaled(graph, graph.computable(rows), recipe.embedding_scale, name)


def drop_all_but_last(graph: GraphBuilder, x: ir.Value, index: ir.Value, name: str) -> ir.Value:
    """The last token's row of x [batch, sequence, K]: [batch, 1, K]. The node is marked, so it can be removed again."""
    return graph.node(
        "GatherND", [x, index], f"{name}/LastToken", [BATCH, 1, dims(x)[-1]], role=LAST_TOKEN, batch_dims=1
    )


def logits(graph: GraphBuilder, recipe: DecoderRecipe, x: ir.Value) -> ir.Value:
    """float32 [batch, sequence, vocabulary] of the normed hidden states x."""
    shape = [*dims(x)[:-1], recipe.vocab_size]
    out = _project(graph, recipe, x, shape)
    out = scaled(graph, out, recipe.logits_scale, "lm_head")
    if out.dtype != ir.DataType.FLOAT:
        out = graph.node("Cast", [out], "lm_head/Cast", shape, dtype=ir.DataType.FLOAT, to=ir.DataType.FLOAT)
    return out


def _project(graph: GraphBuilder, recipe: DecoderRecipe, x: ir.Value, shape: Dims) -> ir.Value:
    names, dtype = recipe.names, graph.dtype
    if not recipe.tied:
        head = graph.matrix(names.head, transposed=True)
    elif graph.serves("FusedMatMul", dtype, dtype, domain=MICROSOFT, outputs=[dtype], transB=1):
        table = graph.computable(graph.matrix(names.embedding))
        return graph.node(
            "FusedMatMul", [x, table], "lm_head/FusedMatMul", shape, domain=MICROSOFT, role="head", transB=1
        )
    else:
        head = graph.matrix(names.head, graph.weights[names.embedding], transposed=True)
    return graph.node("MatMul", [x, graph.computable(head)], "lm_head/MatMul", shape, role="head")


def scaled(graph: GraphBuilder, x: ir.Value, factor: float, name: str) -> ir.Value:
    """x times a factor; x itself where the factor is 1."""
    return x if factor == 1.0 else graph.node("Mul", [x, graph.number(factor)], f"{name}/Scale", dims(x))
