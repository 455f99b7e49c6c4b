"""Assigning schemes to the matrices of a package, and splitting a vocabulary whose parts get different schemes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from drupe_blockquant import Scheme
from drupe_mixed_precision.groups import Group, groups_of
from drupe_mixed_precision.losses import SENSITIVITY
from drupe_mixed_precision.vocabulary import parts_of_vocabulary, split
from drupe_nbits import Site, assign, expert_schemes, find_experts
from drupe_onnx import Capabilities, OnnxPackage

EXPERT_BITS = 4


def parts_of(package: OnnxPackage) -> list[Group]:
    """Everything in a package that may have a scheme of its own: its matrices, and parts of large vocabularies."""
    matrices = [group for component in package.components.values() for group in groups_of(component.graph)]
    return [part for matrix in matrices for part in parts_of_vocabulary(matrix)]


def assign_schemes(parts: Sequence[Group], schemes: Sequence[Scheme | None]) -> None:
    """Set the scheme of each of `parts_of` a package; None leaves a part as it is.

    The measured sensitivities are deleted: nothing reads them once the schemes are known.
    """
    by_matrix: dict[tuple[Site, ...], list[tuple[Group, Scheme]]] = {}
    for part, scheme in zip(parts, schemes, strict=True):
        if scheme is not None:
            by_matrix.setdefault(part.sites, []).append((part, scheme))
    for part in parts:
        for site in part.sites:
            site.node.metadata_props.pop(SENSITIVITY, None)
    for chosen in by_matrix.values():
        _assign(chosen)


def assign_to_experts(package: OnnxPackage, symmetric: bool, capabilities: Capabilities) -> None:
    """Set the scheme of all experts: EXPERT_BITS, in blocks of the best size. Their sensitivities are deleted."""
    for component in package.components.values():
        for site in find_experts(component.graph):
            site.node.metadata_props.pop(SENSITIVITY, None)
            if schemes := expert_schemes(site, EXPERT_BITS, symmetric, None, capabilities):
                assign(site.node, schemes[0])


def reassign_experts(package: OnnxPackage, schemes: Mapping[str, Scheme]) -> None:
    """Set other schemes for some experts. schemes: by the names of their nodes."""
    for component in package.components.values():
        for site in find_experts(component.graph):
            if (scheme := schemes.get(site.name)) is not None:
                assign(site.node, scheme)


def _assign(parts: Sequence[tuple[Group, Scheme]]) -> None:
    """Set the schemes of a matrix. Parts with different schemes become separate matrices."""
    ranges = [(scheme, list(same)) for scheme, same in itertools.groupby(parts, key=lambda part: part[1])]
    if len(ranges) == 1:
        for site in parts[0][0].sites:
            assign(site.node, parts[0][1])
        return
    bounds = [0]
    for _, same in ranges:
        bounds.append(bounds[-1] + sum(group.shape[0] for group, _ in same))
    for (scheme, _), nodes in zip(ranges, split(parts[0][0], bounds), strict=True):
        for node in nodes:
            assign(node, scheme)
