"""Choosing schemes within a budget: a size, bits for each weight, a divergence, or 1.05 times the usual size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from drupe.api import Record, UsageError
from drupe_blockquant import Scheme
from drupe_mixed_precision.configuration import AllocateBitsConfig
from drupe_mixed_precision.groups import Group
from drupe_mixed_precision.losses import measured_sensitivity
from drupe_mixed_precision.scheme_choice import Budget, Candidate, choose
from drupe_mixed_precision.sizes import parse_size
from drupe_mixed_precision.usual_size import already_quantized, usual_bytes, usual_package_bytes
from drupe_mixed_precision.written_size import written_bytes
from drupe_nbits import ExpertSite, expert_bytes, find_experts
from drupe_onnx import Capabilities, OnnxPackage, expression_of, initializers_of, weight_bytes
from drupe_onnx.traits import ACCURACY_LEVEL

GENEROUS = 1.05
"""The default budget, as a multiple of the usual bytes."""
MOST_ADDED = {"plain": (500, 6), "two levels": (2000, 24), "split": (6000, 80)}
"""Bytes of graph that a scheme adds at most for each use of its matrix, and for each character of the matrix's name."""
GAPS = 5000
"""The part of a package that the gaps between its weights may differ by."""
SLOWER = 1.08
"""The default limit of the time for a decoded token, as a multiple of the time with the fastest schemes."""
UNNOTICED = 2e-3
"""Seconds for each decoded token below which time is no limit: such small models get all bits that the bytes allow."""
INT8, ACTIVATIONS = 4, 4e-4
"""The accuracy level that multiplies in int8, and the KL divergence in nats that this alone costs trained models."""
DOUBT = 4.0
"""The factor by which an estimate may be too high. Limits within it are not refused: the package is measured later."""
CAUTION = 0.7
"""The share of a limit of divergence that is used: estimates may be off by this factor, and the package is measured."""


class Allocation(Record):
    """The input of the choice. candidates: for each of `parts_of` the package, the schemes that the target supports,
    the smallest first; empty where it supports none. instead: the candidate for weights that are not quantized, if any.
    experts: the experts whose schemes are chosen, with their candidates; those of other experts are assigned already.
    """

    config: AllocateBitsConfig
    package: OnnxPackage
    capabilities: Capabilities
    parts: Sequence[Group]
    candidates: Sequence[Sequence[Candidate]]
    instead: str = ""
    experts: Sequence[tuple[ExpertSite, Sequence[Candidate]]] = ()

    @property
    def served(self) -> list[Group]:
        """The parts that get a scheme."""
        return [part for part, found in zip(self.parts, self.candidates, strict=True) if found]

    @property
    def offers(self) -> list[Sequence[Candidate]]:
        """The candidates of each part that gets a scheme, and then of the experts."""
        return [*(found for found in self.candidates if found), *(found for _, found in self.experts)]

    @property
    def weights(self) -> int:
        """How many weights get a scheme."""
        return sum(part.size for part in self.served) + sum(site.size for site, _ in self.experts)

    @property
    def cheapest(self) -> list[Candidate]:
        """The choice that takes the fewest bytes."""
        return [found[0] for found in self.offers]

    @property
    def floor(self) -> float:
        """The KL divergence, in nats a token, that the target costs with any weights."""
        return ACTIVATIONS if self.capabilities.traits.get(ACCURACY_LEVEL) == INT8 else 0.0

    def schemes(self, chosen: Sequence[Candidate]) -> list[Scheme | None]:
        """The scheme of each part under a choice."""
        left = iter(chosen)
        return [next(left).scheme if found else None for found in self.candidates]

    def expert_schemes(self, chosen: Sequence[Candidate]) -> dict[str, Scheme]:
        """The schemes of experts under a choice, by the names of their nodes."""
        own = chosen[len(self.served) :]
        return {site.name: candidate.scheme for (site, _), candidate in zip(self.experts, own, strict=True)}

    def written(self, chosen: Sequence[Candidate]) -> int:
        """Bytes of the graphs and weights of the whole package under a choice, as they will be written."""
        schemes, experts = self.schemes(chosen), self.expert_schemes(chosen)
        return written_bytes(self.package, schemes, self.capabilities, experts=experts)


def choose_within_budget(given: Allocation) -> Sequence[Candidate]:
    """A candidate for each part that gets a scheme. Raises UsageError for a budget that none keeps."""
    config = given.config
    budgets = (config.target_size, config.bits_per_weight)
    if None not in budgets:
        raise UsageError("two budgets are given", cure="give only one: --target-size or --bits-per-weight")
    if config.target_size is not None:
        return _within_size(given, config.target_size)
    if config.bits_per_weight is not None:
        return _within_bits(given, config.bits_per_weight)
    return _by_default(given) if config.max_kl is None else _within_divergence(given, config.max_kl)


def _within_size(given: Allocation, text: str) -> Sequence[Candidate]:
    """The best whose graphs and weights take no more than a size."""
    size = parse_size(text)
    chosen = _fitting(given, size - _bytes_of_others(given), size, lambda nbytes: choose(given.offers, Budget(nbytes)))
    if chosen is None:
        raise _too_small(given, f"--target-size {text}")
    return chosen


def _within_bits(given: Allocation, bits: float) -> Sequence[Candidate]:
    """The best that takes no more bits for each weight that is quantized."""
    nbytes = int(given.weights * bits / 8)
    if _total(given.cheapest) > nbytes:
        raise _too_small(given, f"--bits-per-weight {bits:g}")
    return choose(given.offers, Budget(nbytes))


def _within_divergence(given: Allocation, limit: float) -> Sequence[Candidate]:
    """The cheapest that is estimated to cost no more than a limit of KL divergence."""
    _refuse_unmeasured(given.served)
    budget = Budget(sum(found[-1].nbytes for found in given.offers))
    chosen = choose(given.offers, budget, CAUTION * limit - given.floor)
    least = sum(candidate.loss for candidate in chosen) + given.floor
    if least > DOUBT * limit:
        raise _too_close(given, limit, least)
    return chosen


def _by_default(given: Allocation) -> Sequence[Candidate]:
    """The best choice within GENEROUS times the usual bytes. If that decodes too slowly, time is limited as well.

    The graphs' sizes are computed only where they could make a difference.
    """
    fastest = sum(min(candidate.seconds for candidate in found) for found in given.offers)
    allowed = max(SLOWER * fastest, UNNOTICED)

    def best(nbytes: int) -> Sequence[Candidate]:
        chosen = choose(given.offers, Budget(nbytes))
        slow = sum(candidate.seconds for candidate in chosen) > allowed
        return choose(given.offers, Budget(nbytes, allowed)) if slow else chosen

    left = sum(int(GENEROUS * usual) - taken for usual, taken in already_quantized(given.package))
    nbytes = int(GENEROUS * sum(map(usual_bytes, given.served))) + max(0, left)
    chosen = best(nbytes)
    spare = nbytes - _total(chosen) + (GENEROUS - 1) * _bytes_of_others(given)
    if spare > _most_in_graph(given, chosen) + nbytes / GAPS:
        return chosen
    served = [bool(found) for found in given.candidates]
    usual = usual_package_bytes(given.package, given.parts, served, given.capabilities)
    return _fitting(given, nbytes, int(GENEROUS * usual), best) or given.cheapest


def _fitting(
    given: Allocation, nbytes: int, limit: int, best: Callable[[int], Sequence[Candidate]]
) -> Sequence[Candidate] | None:
    """The best choice for so many bytes of weights, or for fewer, until graphs and weights are within the limit.

    None where even the cheapest choice is above the limit.
    """
    least = _total(given.cheapest)
    while nbytes >= least:
        chosen = best(nbytes)
        excess = given.written(chosen) - limit
        if excess <= 0:
            return chosen
        nbytes = _total(chosen) - excess
    return given.cheapest if given.written(given.cheapest) <= limit else None


def _total(chosen: Sequence[Candidate]) -> int:
    return sum(candidate.nbytes for candidate in chosen)


def _most_in_graph(given: Allocation, chosen: Sequence[Candidate]) -> int:
    """More bytes than a choice adds to the graphs."""
    added = 0
    for part, candidate in zip(given.served, chosen, strict=True):
        form = "split" if part.rows is not None else "two levels" if candidate.scheme.two_level else "plain"
        fixed, named = MOST_ADDED[form]
        added += sum(fixed + named * len(site.name) for site in part.sites)
    return added


def _bytes_of_others(given: Allocation) -> int:
    """Bytes of the weights that are not chosen for: those that stay as they are, and experts in their scheme."""
    matrices = {expression_of(site.weight) for part in given.parts for site in part.sites}
    fixed, chosen_for = 0, {site.name for site, _ in given.experts}
    for component in given.package.components.values():
        for experts in find_experts(component.graph):
            if (scheme := experts.scheme) is not None:
                matrices |= {expression_of(each.weight) for each in (experts.up, experts.down)}
                fixed += 0 if experts.name in chosen_for else expert_bytes(experts, scheme)
    held = (value for component in given.package.components.values() for value in initializers_of(component))
    return fixed + weight_bytes(value for value in held if expression_of(value) not in matrices)


def _too_small(given: Allocation, flag: str) -> UsageError:
    """The error for a budget that is smaller than the cheapest choice."""
    size = given.written(given.cheapest)
    bits = 8 * _total(given.cheapest) / max(1, given.weights)
    return UsageError(
        f"graph and weights take at least {size / 1e6:.4g} MB; quantized weights take at least {bits:.3g} bits each",
        where=flag,
        cure=f"--target-size {-(-size // 1000) / 1e3:g}MB, or --bits-per-weight {bits + 0.005:.2f}",
    )


def _too_close(given: Allocation, limit: float, least: float) -> UsageError:
    """The error for a divergence that no weights of at most 8 bits keep. least: the estimate for the best of them."""
    lowest, highest = _rounded_up(least / DOUBT), _rounded_up(least)
    kept = f"--max-kl {highest:g}, which should succeed; values from {lowest:g} on are tried"
    return UsageError(
        f"weights of 8 bits, the most that are used, are expected to cost {lowest:g} to {highest:g} nats a token of KL "
        "divergence",
        where=f"--max-kl {limit:g}",
        cure=", or ".join(filter(None, (given.instead, kept))),
    )


def _rounded_up(number: float) -> float:
    """A number with two digits that is not smaller."""
    step = 10.0 ** (math.floor(math.log10(number)) - 1)
    return float(f"{math.ceil(number / step - 1e-9) * step:.2g}")


def _refuse_unmeasured(groups: Sequence[Group]) -> None:
    if any(measured_sensitivity(group) is None for group in groups):
        raise UsageError("a limit of KL divergence needs `measure-sensitivity` before `allocate-bits`")
