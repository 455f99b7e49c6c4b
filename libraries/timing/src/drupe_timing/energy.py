"""Energy: what the processor's own counters say (RAPL), where the system lets them be read."""

from __future__ import annotations

import re
from pathlib import Path

from drupe.api import Record

POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"intel-rapl:\d+")  # AMD's processors have the same name
_MEMORY = re.compile(r"intel-rapl:\d+:\d+")


class Zone(Record):
    """A counter of microjoules, and the value after which it begins again."""

    file: Path
    most: int

    def read(self) -> int:
        return int(self.file.read_text(encoding="ascii"))


class Energy:
    """The counters of all processors and their memory. missing: why there are none; None where there are."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._zones: list[Zone] = []
        self.missing: str | None = f"this machine does not count energy: {folder} has no counter of a processor"
        for place in sorted(folder.glob("intel-rapl:*")):
            if _counts(place):
                self._add(place)

    def _add(self, place: Path) -> None:
        try:
            zone = Zone(place / "energy_uj", int((place / "max_energy_range_uj").read_text(encoding="ascii")))
            zone.read()
        except PermissionError:
            self.missing = f"energy is not measured: this user cannot read {place / 'energy_uj'}"
        except (OSError, ValueError) as error:
            self.missing = f"energy is not measured: {place / 'energy_uj'} cannot be read: {error}"
        else:
            self._zones.append(zone)
            self.missing = None

    def read(self) -> list[int]:
        """The counters now."""
        return [zone.read() for zone in self._zones]

    def joules(self, before: list[int], after: list[int]) -> float:
        """The energy between two readings of the counters, each of which begins again at most once."""
        used = zip(self._zones, before, after, strict=True)
        return sum((end - start) % (zone.most + 1) for zone, start, end in used) / 1e6


def _counts(place: Path) -> bool:
    """Whether a zone is a processor, or memory beside one. Other zones are parts of these, or the whole machine."""
    try:
        name = (place / "name").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return False
    if _PACKAGE.fullmatch(place.name):
        return name.startswith("package")
    return bool(_MEMORY.fullmatch(place.name)) and name == "dram"
