"""What a scheme costs a group in quality: how much the group counts, times how coarse the scheme is."""

from __future__ import annotations

from drupe.api import ModelError
from drupe_blockquant import Scheme
from drupe_mixed_precision.groups import Group

SENSITIVITY = "drupe.sensitivity"
"""The key of a node's metadata that holds the measured KL divergence, nats a token, of its weights at COARSEST."""

COARSEST = Scheme(4, 128, False, "search")
COARSENESS = {(4, 128): 1.0, (4, 64): 0.9, (4, 32): 0.72, (8, 128): 0.004, (8, 64): 0.004, (8, 32): 0.003}
"""KL divergence by bits and block size, as a share of that at COARSEST: means over the matrices of trained models."""

BY_ROLE = {
    "head": 5.0,
    "embedding": 1.5,
    "attention.qkv": 4.0,
    "attention.output": 4.0,
    "mlp.gate": 1.2,
    "mlp.up": 1.3,
    "mlp.down": 1.0,
}
"""How much a weight counts by its matrix's role, against one of mlp.down; from the same measurements."""
FIRST_BLOCK, SECOND_BLOCK, LAST_BLOCK = 8.0, 2.0, 1.3
"""The hidden state is small at first, so that errors of the first blocks weigh most; nothing mends the last one's."""


def sensitivity(group: Group) -> float:
    """The loss of a group at COARSEST: as measured, or by experience in arbitrary units."""
    measured = measured_sensitivity(group)
    return measured if measured is not None else group.size * BY_ROLE.get(group.role, 1.0) * _by_depth(group)


def measured_sensitivity(group: Group) -> float | None:
    """What `measure-sensitivity` has left at the group's node. Raises ModelError for what is no number."""
    text = next((found for site in group.sites if (found := site.node.metadata_props.get(SENSITIVITY))), None)
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise ModelError(f"the sensitivity of '{group.name}' ({SENSITIVITY}) is no number: {text}") from error


def loss(group: Group, scheme: Scheme) -> float:
    """What the group costs under a scheme."""
    return sensitivity(group) * COARSENESS[scheme.bits, scheme.block_size]


def _by_depth(group: Group) -> float:
    if group.block is None:
        return 1.0
    return {0: FIRST_BLOCK, 1: SECOND_BLOCK, group.blocks - 1: LAST_BLOCK}.get(group.block, 1.0)
