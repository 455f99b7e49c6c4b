"""The choice: from the cheapest scheme of every group, the upgrades that save most for their bytes, while they fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from drupe.api import Capabilities
from drupe_blockquant import Scheme
from drupe_mixed_precision.groups import Group
from drupe_mixed_precision.losses import COARSENESS, loss
from drupe_nbits import refusal


@dataclass(frozen=True)
class Option:
    """One scheme for a group. nbytes: what it takes, loss: what it costs in quality."""

    scheme: Scheme
    nbytes: int
    loss: float


@dataclass(frozen=True)
class Upgrade:
    """A step from one option of a group to a larger and better one."""

    group: int
    option: Option
    added: int
    saved: float

    @property
    def worth(self) -> float:
        """Loss saved for each byte."""
        return self.saved / self.added


def options(group: Group, capabilities: Capabilities, *, symmetric: bool, calibrated: bool = False) -> list[Option]:
    """The schemes that the target serves for all sites of a group, from the smallest to the best."""
    n, k = group.shape
    found = []
    for bits, block_size in COARSENESS:
        scheme = Scheme(bits, block_size, symmetric, "search")
        if not any(refusal(site, scheme, capabilities) for site in group.sites):
            found.append(
                Option(scheme, scheme.bytes_for(n, k, group.scale_bytes), loss(group, scheme, calibrated=calibrated))
            )
    return list(_frontier(found))


def choose(candidates: Sequence[Sequence[Option]], budget: int, enough: float = 0.0) -> list[Option]:
    """An option for each group: the best of losses for `budget` bytes, or the smallest with a loss of at most `enough`.

    Greedy over the upgrades by worth, each group's in order along the convex hull of its options (Shoham and Gersho
    1988, "Efficient bit allocation for an arbitrary set of quantizers"); what no longer fits is passed over for what
    does. With budgets far above a single matrix that is as good as optimal.
    """
    chosen = [group[0] for group in candidates]
    used, lost = sum(each.nbytes for each in chosen), sum(each.loss for each in chosen)
    stuck: set[int] = set()
    for upgrade in sorted(_upgrades(candidates), key=lambda each: -each.worth):
        if lost <= enough:
            break
        if upgrade.group in stuck or used + upgrade.added > budget:
            stuck.add(upgrade.group)
            continue
        chosen[upgrade.group] = upgrade.option
        used, lost = used + upgrade.added, lost - upgrade.saved
    return chosen


def _frontier(found: Iterable[Option]) -> Iterator[Option]:
    """The options that no smaller one beats, the smallest first."""
    least = float("inf")
    for option in sorted(found, key=lambda each: (each.nbytes, each.loss)):
        if option.loss < least:
            least = option.loss
            yield option


def _upgrades(candidates: Sequence[Sequence[Option]]) -> Iterator[Upgrade]:
    for number, group in enumerate(candidates):
        hull = _hull(group)
        for before, after in itertools.pairwise(hull):
            yield Upgrade(number, after, after.nbytes - before.nbytes, before.loss - after.loss)


def _hull(group: Sequence[Option]) -> list[Option]:
    """The options along the lower convex hull of loss over bytes: from each, the next one saves most for a byte."""
    hull = [group[0]]
    while larger := [each for each in group if each.nbytes > hull[-1].nbytes]:
        here = hull[-1]
        hull.append(max(larger, key=lambda each: (here.loss - each.loss) / (each.nbytes - here.nbytes)))
    return hull
