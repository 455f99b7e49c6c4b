"""Schemes for experts: 4 or 8 bits for all experts of a layer, by what they cost in bytes and in quality.

Each token runs a few experts only, and adds up their results, so an error in one of many experts counts less than the
same error in an MLP that every token runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from drupe_blockquant import Scheme
from drupe_blockquant.scheme import BLOCK_SIZES
from drupe_mixed_precision.groups import Group, starts_small
from drupe_mixed_precision.losses import (
    CALIBRATED,
    COARSENESS,
    by_role,
    by_tables,
    measured_sensitivity,
    stored_sensitivity,
)
from drupe_mixed_precision.scheme_choice import Candidate
from drupe_nbits import ExpertSite, expert_bytes, expert_schemes
from drupe_onnx import BLOCK, Capabilities, ir

BITS = (4, 8)
ROLES = (("mlp.gate", "mlp.up"), ("mlp.down",))
"""The roles of the two matrices of experts: the rows of gate and up lie in turn in the first one."""


def expert_options(
    site: ExpertSite, capabilities: Capabilities, *, symmetric: bool, calibrated: bool, groups: Sequence[Group]
) -> list[Candidate]:
    """The best supported scheme of each number of bits, the smallest first.

    calibrated: GPTQ will find the levels. groups: the other matrices.
    """
    lost = stored_sensitivity(site.node, site.name)
    if lost is None:
        lost = _table_sensitivity(site) * _nats_for_each_unit(groups)
    found: dict[Scheme, Candidate] = {}
    for bits in BITS:
        left = CALIBRATED if calibrated and bits < 8 else 1.0
        for scheme in expert_schemes(site, bits, symmetric, None, capabilities)[:1]:
            found[scheme] = Candidate(scheme, expert_bytes(site, scheme), lost * _coarseness(scheme) * left)
    return sorted(found.values(), key=lambda candidate: candidate.nbytes)


def _coarseness(scheme: Scheme) -> float:
    sizes = [size for size in BLOCK_SIZES if (scheme.bits, size) in COARSENESS]
    return COARSENESS[scheme.bits, min(max(scheme.block_size, min(sizes)), max(sizes))]


def _table_sensitivity(site: ExpertSite) -> float:
    """The loss at COARSEST by the tables. With weights of 1/k, the errors of k experts add up to 1/k of one's."""
    graph = site.node.graph
    first = site.node.metadata_props.get(BLOCK) == "0" and isinstance(graph, ir.Graph) and starts_small(graph)
    total = 0.0
    for roles, each in zip(ROLES, (site.up, site.down), strict=True):
        counts = [by_role(role, first) for role in roles]
        total += 0 if each.is_identity else each.rows.size * sum(counts) / len(counts)
    return total / site.up.experts / site.chosen


def _nats_for_each_unit(groups: Sequence[Group]) -> float:
    """What a unit of the tables is in measured divergence; 1 where nothing was measured."""
    measured = [(found, by_tables(group)) for group in groups if (found := measured_sensitivity(group)) is not None]
    units = sum(units for _, units in measured)
    return sum(found for found, _ in measured) / units if units else 1.0
