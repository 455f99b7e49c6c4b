"""The head: where the last segment's hidden rows become logits, token by token."""

from __future__ import annotations

from drupe.api import ModelError
from drupe_layerwise.segments import whole
from drupe_onnx import ROLE, ir

HEAD = "head"
BEHIND = frozenset({"Cast", "Mul", "Div", "Add", "Sub", "Tanh", "Clip", "Reshape", "Identity", "Concat"})
"""What may stand between the product with the head's matrix and the logits: scaling, a bias, a soft cap; and what puts
the parts of a vocabulary together, which are multiplied with the same rows."""


def hidden_rows(logits: ir.Value) -> ir.Value:
    """The activations that the head's matrix is multiplied with: [batch, sequence, hidden].

    Behind them each token is on its own, so they may be run a few at a time.
    """
    value = whole(logits)
    while (node := value.producer()) is not None:
        rows = node.inputs[0]
        if rows is None:
            break
        if node.metadata_props.get(ROLE) == HEAD or node.op_type not in BEHIND:
            return whole(rows)
        value = whole(next((each for each in node.inputs if each is not None and each.producer()), rows))
    raise ModelError(f"no product with a matrix makes the graph's '{logits.name}'")
