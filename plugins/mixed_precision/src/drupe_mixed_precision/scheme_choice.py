"""Choosing schemes: starting from the cheapest of every group, making the upgrades that save most for their price."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from drupe.api import Record, replace
from drupe_blockquant import Scheme
from drupe_mixed_precision.groups import Group
from drupe_mixed_precision.losses import COARSENESS, loss
from drupe_nbits import decode_time, refusal, takes_two_levels
from drupe_onnx import Capabilities

GRAPH_BYTES = 1000
"""Bytes that two levels of scales take in the graph: two casts, a product and another tensor, with their names."""


class Candidate(Record):
    """One scheme for a group. nbytes: its size; seconds: its share of each decoded token; loss: in quality."""

    scheme: Scheme
    nbytes: int
    loss: float
    seconds: float = 0.0


class Budget(Record):
    """What all groups together may take. seconds: for each decoded token."""

    nbytes: int
    seconds: float = math.inf

    def price(self, candidate: Candidate) -> float:
        """The price of a candidate, as a share of the budget."""
        return candidate.nbytes / self.nbytes + candidate.seconds / self.seconds

    def holds(self, nbytes: int, seconds: float) -> bool:
        """Whether so much fits into the budget."""
        return nbytes <= self.nbytes and seconds <= self.seconds


class Upgrade(Record):
    """A step from one candidate of a group to a larger and better one."""

    group: int
    before: Candidate
    after: Candidate
    worth: float
    """The loss that the upgrade saves, divided by its price."""


def candidates_of(
    group: Group, capabilities: Capabilities, *, symmetric: bool, calibrated: bool = False
) -> list[Candidate]:
    """The schemes that the target supports for all sites of a group, from the smallest to the best.

    If an earlier pass has assigned bits, only schemes with these bits are returned: the matrix of a rotation needs
    eight. Scales have two levels if the target supports that and it saves bytes.
    """
    part = group.size / group.whole_size
    two_level = not symmetric and all(takes_two_levels(site, capabilities) for site in group.sites)
    found = []
    for bits, block_size in COARSENESS:
        if bits != (group.bits or bits):
            continue
        plain = Scheme(bits, block_size, symmetric, "search")
        if not any(refusal(site, plain, capabilities) for site in group.sites):
            both = [plain, replace(plain, two_level=True)] if two_level else [plain]
            scheme = min(both, key=lambda each: _bytes(group, each))
            seconds = sum(decode_time(site, scheme, capabilities) for site in group.sites)
            lost = loss(group, scheme, calibrated=calibrated)
            found.append(Candidate(scheme, _bytes(group, scheme), lost, part * seconds))
    return sorted(found, key=lambda candidate: (candidate.nbytes, candidate.loss))


def _bytes(group: Group, scheme: Scheme) -> int:
    return scheme.bytes_for(*group.shape, group.scale_bytes) + scheme.two_level * GRAPH_BYTES


def choose(candidates: Sequence[Sequence[Candidate]], budget: Budget, enough: float = 0.0) -> list[Candidate]:
    """A candidate for each group: the least total loss within the budget, or the cheapest with a loss up to `enough`.

    The algorithm is greedy: it makes upgrades by worth, each group's in order along the convex hull of its candidates
    (Shoham and Gersho 1988, "Efficient bit allocation for an arbitrary set of quantizers"). Upgrades that do not fit
    are skipped. If the budget is much larger than a single matrix, the result is nearly optimal.
    """
    chosen = [min(group, key=budget.price) for group in candidates]
    nbytes, seconds = sum(each.nbytes for each in chosen), sum(each.seconds for each in chosen)
    lost = sum(each.loss for each in chosen)
    stuck: set[int] = set()
    for upgrade in sorted(_upgrades(candidates, budget), key=lambda each: -each.worth):
        if lost <= enough:
            break
        before, after = upgrade.before, upgrade.after
        larger, slower = nbytes + after.nbytes - before.nbytes, seconds + after.seconds - before.seconds
        if upgrade.group in stuck or not budget.holds(larger, slower):
            stuck.add(upgrade.group)
            continue
        chosen[upgrade.group] = after
        nbytes, seconds, lost = larger, slower, lost - before.loss + after.loss
    return chosen


def _upgrades(candidates: Sequence[Sequence[Candidate]], budget: Budget) -> Iterator[Upgrade]:
    """Steps along the lower convex hull of each group's loss over price: each saves the most loss for its price."""
    for number, group in enumerate(candidates):
        here = min(group, key=budget.price)
        while better := [each for each in group if each.loss < here.loss and budget.price(each) > budget.price(here)]:

            def worth(candidate: Candidate, here: Candidate = here) -> float:
                return (here.loss - candidate.loss) / (budget.price(candidate) - budget.price(here))

            after = max(better, key=worth)
            yield Upgrade(number, here, after, worth(after))
            here = after
