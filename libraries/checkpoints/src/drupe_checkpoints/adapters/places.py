"""Which of a checkpoint's tensors an adapter's names mean.

An adapter names modules as transformers had them when it was trained. The checkpoint's files may have other prefixes:
without "transformer.", or "language_model.model." where the modules lie in "model.language_model.".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from drupe.api import ModelError, Record

Shape = tuple[int, ...]


class Rewriting(Record):
    """Names that begin with `old` begin with `new` in the checkpoint."""

    old: str
    new: str

    def of(self, name: str) -> str:
        return self.new + name.removeprefix(self.old) if name.startswith(self.old) else name


@dataclasses.dataclass
class Places:
    """The checkpoint's names for tensors that an adapter names. `shapes`: of the checkpoint's tensors, by name."""

    shapes: Mapping[str, Shape]
    names: dict[str, str] = dataclasses.field(default_factory=dict)

    def find(self, wanted: Mapping[str, Shape | None]) -> None:
        """Find the places of some tensors; those that have none are left out.

        wanted: the shape that each should have; None where it is not known. Raises ModelError where names mean several
        tensors alike.
        """
        self.names |= {name: name for name in wanted if name in self.shapes}
        left = {name: shape for name, shape in wanted.items() if name not in self.names}
        while left:
            chosen = self._best(left)
            if chosen is None:
                return
            moved = {name: chosen.of(name) for name in left}
            hit = {name: place for name, place in moved.items() if place in self.shapes}
            self.names |= hit
            left = {name: shape for name, shape in left.items() if name not in hit}

    def _best(self, left: Mapping[str, Shape | None]) -> Rewriting | None:
        """The rewriting that most names and shapes fit; of several, the one that changes least."""
        for name in left:
            scored = [(self._fitting(each, left), each) for each in self._candidates(name)]
            if not scored:
                continue
            most = max(score for score, _ in scored)
            best = [each for score, each in scored if score == most]
            alike = [each for each in best if each.of(name).count(".") == best[0].of(name).count(".")]
            shortest = [each for each in best if len(each.old) == min(len(other.old) for other in best)]
            if len(shortest) > 1 and len(alike) > 1:
                _refuse_several(name, [each.of(name) for each in shortest])
            return shortest[0]
        return None

    def _fitting(self, rewriting: Rewriting, left: Mapping[str, Shape | None]) -> tuple[int, int]:
        """How many tensors are there with their shapes, and how many at all."""
        places = {name: rewriting.of(name) for name in left}
        there = [name for name, place in places.items() if place in self.shapes]
        shaped = [name for name in there if left[name] in (None, self.shapes[places[name]])]
        return len(shaped), len(there)

    def _candidates(self, name: str) -> Iterable[Rewriting]:
        """The rewritings that make a tensor of the checkpoint of `name`, those that keep most of it first."""
        pieces = name.split(".")
        for cut in range(len(pieces) - 1):
            end = ".".join(pieces[cut:])
            found = [each for each in self.shapes if each == end or each.endswith(f".{end}")]
            if found:
                old = name.removesuffix(end)
                choices = [Rewriting(old, each.removesuffix(end)) for each in sorted(found)]
                return [each for each in choices if _numbers(each.old) == _numbers(each.new)]
        return ()


def _numbers(prefix: str) -> list[str]:
    """The numbers in a prefix, which are those of layers: what is said of one layer is not meant for another."""
    return [piece for piece in prefix.split(".") if piece.isdigit()]


def named(shapes: Collection[str], endings: Sequence[str]) -> list[str]:
    """The tensors of a checkpoint whose module has one of these names."""
    wanted = tuple(f"{each}.weight" for each in endings)
    return sorted(name for name in shapes if name in wanted or name.endswith(tuple(f".{each}" for each in wanted)))


def _refuse_several(name: str, places: Sequence[str]) -> None:
    raise ModelError(
        f"the adapter's {name} could mean several of the checkpoint's tensors: {', '.join(places)}",
        cure="save the adapter for the model that it is merged into",
    )
