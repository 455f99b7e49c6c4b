"""Metadata keys: what graphs and nodes state about themselves beyond their operators."""

from __future__ import annotations

FLOAT_MATRICES = "drupe.float_matrices"
"""The key of a model's metadata that lists, as JSON, the weights that a quantizer has left in floating point."""
LEFT_OUT = "drupe.left_out"
"""The key of a model's metadata that lists, as JSON, the modules of its checkpoint that it does not hold."""
ROLE = "drupe.role"
"""The key of a node's metadata that says what the node does."""
BLOCK = "drupe.block"
"""The key of a node's metadata that holds the number of the decoder block that the node is in."""
LAST_TOKEN = "last-token"
"""The role of nodes that drop the logits of all but the last token."""
PADDING = "padding"
"""The role of nodes that arrange the rows of a batch by their padding."""
POSITIONS = "positions"
"""The role of nodes that compute tables of positions. Blocks read what they make, but it is no hidden state."""
