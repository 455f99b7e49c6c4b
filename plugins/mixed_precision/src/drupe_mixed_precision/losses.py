"""Losses: the quality that a scheme costs a group, which is the group's sensitivity times the scheme's error."""

from __future__ import annotations

from drupe.api import ModelError
from drupe_blockquant import Scheme
from drupe_mixed_precision.groups import Group
from drupe_onnx import ir

SENSITIVITY = "drupe.sensitivity"
"""The key of a node's metadata that holds the measured KL divergence, nats a token, of its weights at COARSEST."""

COARSEST = Scheme(4, 128, False, "search")
COARSENESS = {
    (4, 128): 1.0,
    (4, 64): 0.85,
    (4, 32): 0.66,
    (4, 16): 0.46,
    (8, 128): 0.0039,
    (8, 64): 0.0032,
    (8, 32): 0.0025,
}
"""Squared error by bits and block size, as a share of that at COARSEST: means over the matrices of trained models."""

BY_ROLE = {
    "head": 3.2,
    "embedding": 0.9,
    "attention.qkv": 2.4,
    "attention.output": 3.0,
    "mlp.gate": 0.65,
    "mlp.up": 0.55,
    "mlp.down": 1.0,
}
"""How much a weight counts by its matrix's role, relative to a weight of mlp.down: fitted to KL divergences measured in
trained models, by least squares over their logarithms. For a shared matrix, the roles add up.
"""
FIRST_BLOCK = {"attention.qkv": 0.8, "attention.output": 4.0, "mlp.gate": 7.5, "mlp.up": 7.5, "mlp.down": 7.5}
"""How much more a weight counts in the first block: hidden states are small there, so an error that is added to them
counts most. Errors in the inputs of attention only change what attention looks at. Where norms give the results of
attention and MLP another size before they are added, a weight of the first block counts at most twice as much as others
(measured in Gemma 2 and 3), so this does not apply.
"""

CALIBRATED, CALIBRATED_SHARED = 0.3, 0.5
"""The share of the divergence that GPTQ leaves at fewer than 8 bits; the second is for a head tied to the embedding."""


def sensitivity(group: Group) -> float:
    """The loss of a group at COARSEST: the measured one, or one from the tables here, in arbitrary units."""
    measured = measured_sensitivity(group)
    if measured is None:
        measured = by_tables(group)
    return measured * group.share


def by_tables(group: Group) -> float:
    """The loss of a group's whole matrix at COARSEST by the tables here, in arbitrary units."""
    return group.whole_size * sum(by_role(role, group.is_first) for role in group.roles)


def measured_sensitivity(group: Group) -> float | None:
    """What `measure-sensitivity` has stored at the group's node. Raises ModelError for what is no number."""
    found = (stored_sensitivity(site.node, group.name) for site in group.sites)
    return next((each for each in found if each is not None), None)


def stored_sensitivity(node: ir.Node, name: str) -> float | None:
    """The number that `measure-sensitivity` has stored at a node. Raises ModelError for what is no number."""
    text = node.metadata_props.get(SENSITIVITY)
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise ModelError(f"the sensitivity of '{name}' ({SENSITIVITY}) is not a number: {text}") from error


def loss(group: Group, scheme: Scheme, *, calibrated: bool = False) -> float:
    """The loss of a group under a scheme. calibrated: GPTQ will find its weights."""
    left = _left_by_gptq(group) if calibrated and scheme.bits < 8 else 1.0
    return sensitivity(group) * COARSENESS[scheme.bits, scheme.block_size] * left


def _left_by_gptq(group: Group) -> float:
    if not group.is_looked_up:
        return CALIBRATED
    return CALIBRATED_SHARED if group.is_multiplied else 1.0


def by_role(role: str, is_first: bool) -> float:
    """How much a weight counts by its role, and by whether hidden states are small before its block."""
    return BY_ROLE.get(role, 1.0) * (FIRST_BLOCK.get(role, 1.0) if is_first else 1.0)
