"""Checkpoints with merged experts: one tensor for all experts' gate and up, and one for down.

transformers 5 writes them so in its own form. Qwen3-VL with experts is published so, with transposed matrices.
"""

from __future__ import annotations

from drupe.api import ModelError
from drupe_checkpoints import Checkpoint
from drupe_model_builder.composition import Decoder
from drupe_model_builder.parts.experts import Experts
from drupe_onnx import Expression, RowRange, Transpose, member

GATE_UP, UP, DOWN = "gate_up_proj", "up_proj", "down_proj"


def take_apart(checkpoint: Checkpoint, held: dict[str, Expression], decoder: Decoder) -> None:
    """Replace merged tensors by those that the decoder names. Others stay as they are.

    Raises ModelError for merged tensors of another shape than config.json requires.
    """
    for part in decoder.experts:
        if part.up.rows[0].tensor in held:
            continue
        _rename(held, part)
        merged = f"{part.name}.{UP if part.gate is None else GATE_UP}"
        if part.up.rows[0].index is None and merged in held and f"{part.name}.{DOWN}" in held:
            _split(checkpoint, held, part, merged)


def _rename(held: dict[str, Expression], part: Experts) -> None:
    """Give tensors that have other names beside merged experts their own."""
    for here, there in part.renamed:
        if here == there:
            continue
        for name in [name for name in held if name.startswith(there)]:
            held.setdefault(here + name.removeprefix(there), held.pop(name))


def _split(checkpoint: Checkpoint, held: dict[str, Expression], part: Experts, merged: str) -> None:
    """A matrix of its own for each expert's gate, up and down. merged: the tensor that holds gate and up.

    transformers gives idle experts gate and up, too, which they do not use.
    """
    count, (width, hidden) = len(part.up.rows), part.up.rows[0].shape
    gates = 0 if part.gate is None else width
    down_name = f"{part.name}.{DOWN}"
    raised, lowered = (count + part.router.idle, gates + width, hidden), (count, hidden, width)
    turned = [(number, columns, rows) for number, rows, columns in (raised, lowered)]
    transposed = [tuple(held[name].shape) for name in (merged, down_name)] == turned and turned != [raised, lowered]
    gate_up = _of_shape(checkpoint, held, merged, turned[0] if transposed else raised)
    down = _of_shape(checkpoint, held, down_name, turned[1] if transposed else lowered)

    def matrix(tensor: Expression, number: int) -> Expression:
        one = member(tensor, number)
        return Transpose(one) if transposed else one

    for number in range(count):
        both = matrix(gate_up, number)
        if part.gate is not None:
            held[part.gate.rows[number].tensor] = RowRange(both, 0, width)
        held[part.up.rows[number].tensor] = RowRange(both, gates, gates + width)
        held[part.down.rows[number].tensor] = matrix(down, number)


def _of_shape(
    checkpoint: Checkpoint, held: dict[str, Expression], name: str, shape: tuple[int, int, int]
) -> Expression:
    tensor = held.pop(name)
    if tuple(tensor.shape) != shape:
        raise ModelError(
            f"the tensor {name} has the shape {list(tensor.shape)}, but config.json requires {list(shape)}",
            where=checkpoint.folder,
            cure="check that config.json belongs to these files",
        )
    return tensor
