"""A head that config.json ties to the embedding although the checkpoint holds it as well."""

from __future__ import annotations

from collections.abc import Mapping

from drupe.api import Notice, replace
from drupe_model_builder.composition import Decoder
from drupe_onnx import Expression, Files

COMPARED = 8 << 20
"""How many values of each matrix are compared at a time."""


def settled_head(
    held: Mapping[str, Expression], decoder: Decoder
) -> tuple[dict[str, Expression], Decoder, tuple[Notice, ...]]:
    """The tensors and the decoder with the head decided, as in transformers 5, and a notice where that needs one.

    A head that equals the embedding is tied; one that differs is kept, whatever config.json says. A checkpoint that
    holds only the head uses it as its embedding, too.
    """
    table, tensors = decoder.embedding.table, dict(held)
    if decoder.head is None or not decoder.head.tied or (head := decoder.head.matrix) not in held:
        return tensors, decoder, ()
    if table not in held or _equal(held[table], held[head]):
        tensors.setdefault(table, tensors.pop(head))
        return tensors, decoder, ()
    notice = Notice(
        "weights",
        "chosen",
        f"the head {head} is used as it is stored, as in transformers: it differs from {table}, "
        "although config.json, or the family where it says nothing, ties them",
        'set "tie_word_embeddings": false in config.json if the head is meant; otherwise remove the tensor',
    )
    return tensors, replace(decoder, head=replace(decoder.head, tied=False)), (notice,)


def _equal(one: Expression, other: Expression) -> bool:
    """Whether two matrices hold the same numbers. Those that differ mostly do so in the rows that are read first."""
    if tuple(one.shape) != tuple(other.shape):
        return False
    rows = one.shape[0]
    step = max(1, COMPARED // max(1, one.shape[-1]))
    places = [(at, at + 1) for at in (0, rows // 2, rows - 1)]
    with Files() as files:
        return all(
            _equal_rows(one, other, start, min(stop, rows), files)
            for start, stop in (*places, *((at, at + step) for at in range(0, rows, step)))
        )


def _equal_rows(one: Expression, other: Expression, start: int, stop: int, files: Files) -> bool:
    first, second = one.rows(start, stop, files), other.rows(start, stop, files)
    if first.dtype != second.dtype:
        first, second = first.astype("float32"), second.astype("float32")
    return bool((first == second).all())
