"""What a scheme costs a group in quality: how much the group counts, times how coarse the scheme is."""

from __future__ import annotations

from drupe.api import ModelError
from drupe_blockquant import Scheme
from drupe_mixed_precision.groups import Group

SENSITIVITY = "drupe.sensitivity"
"""The key of a node's metadata that holds the measured KL divergence, nats a token, of its weights at COARSEST."""

COARSEST = Scheme(4, 128, False, "search")
COARSENESS = {(4, 128): 1.0, (4, 64): 0.9, (4, 32): 0.72, (4, 16): 0.5, (8, 128): 0.004, (8, 64): 0.004, (8, 32): 0.003}
"""KL divergence by bits and block size, as a share of that at COARSEST: means over the matrices of trained models."""

BY_ROLE = {
    "head": 3.0,
    "embedding": 0.8,
    "attention.qkv": 3.0,
    "attention.output": 3.2,
    "mlp.gate": 0.8,
    "mlp.up": 0.8,
    "mlp.down": 1.0,
}
"""How much a weight counts by its matrix's role, against one of mlp.down, in the same measurements.

The roles of a matrix that is shared add up.
"""
FIRST_BLOCK, SECOND_BLOCK = 8.0, 2.0
"""The hidden state is small at first, so that errors of the first blocks weigh most."""


CALIBRATED, CALIBRATED_SHARED = 0.3, 0.5
"""What GPTQ leaves of the divergence at fewer than 8 bits; of a head's whose matrix tokens are looked up in, too."""


def sensitivity(group: Group) -> float:
    """The loss of a group at COARSEST: as measured, or by experience in arbitrary units."""
    measured = measured_sensitivity(group)
    if measured is None:
        measured = group.whole_size * sum(BY_ROLE.get(role, 1.0) for role in group.roles) * _by_depth(group)
    return measured * group.share


def measured_sensitivity(group: Group) -> float | None:
    """What `measure-sensitivity` has left at the group's node. Raises ModelError for what is no number."""
    text = next((found for site in group.sites if (found := site.node.metadata_props.get(SENSITIVITY))), None)
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise ModelError(f"the sensitivity of '{group.name}' ({SENSITIVITY}) is no number: {text}") from error


def loss(group: Group, scheme: Scheme, *, calibrated: bool = False) -> float:
    """What the group costs under a scheme. calibrated: its weights will be found by GPTQ."""
    left = _left_by_gptq(group) if calibrated and scheme.bits < 8 else 1.0
    return sensitivity(group) * COARSENESS[scheme.bits, scheme.block_size] * left


def _left_by_gptq(group: Group) -> float:
    if not group.is_looked_up:
        return CALIBRATED
    return CALIBRATED_SHARED if group.is_multiplied else 1.0


def _by_depth(group: Group) -> float:
    return 1.0 if group.block is None else {0: FIRST_BLOCK, 1: SECOND_BLOCK}.get(group.block, 1.0)
