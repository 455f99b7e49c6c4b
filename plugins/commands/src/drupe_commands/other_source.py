"""Whether a package was made of another model than the one that it is compared with, as its record says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe_files.package_record import from_record


def is_of_another_source(package: str, against: str) -> bool:
    """Whether the package's record names another source than `against`, and than what `against` was made of.

    False where the sources are of different kinds, because their fingerprints say nothing then.
    """
    from drupe.api import registry, resolve

    source = _recorded_source(Path(package))
    if source is None:
        return False
    model = resolve(against, _recorded_options(Path(package), against), registry())
    fingerprint = registry().kinds.make(model.kind).fingerprint(model, thorough=False)
    others = [{"kind": model.kind, "fingerprint": fingerprint}, _recorded_source(model.location)]
    alike = [other["fingerprint"] for other in others if other and other["kind"] == source["kind"]]
    return bool(alike) and source["fingerprint"] not in alike


def _recorded_source(package: Path) -> dict[str, Any] | None:
    """What the record of a package says of its source; None for a model without a record."""
    return from_record(package, lambda record: {key: record["source"][key] for key in ("kind", "fingerprint")})


def _recorded_options(package: Path, source: str) -> Mapping[str, Any]:
    """How the model that the package was made of was found, with its adapters; empty for another model."""
    planned = from_record(package, lambda record: record["plan"]["source"]) or {}
    same = Path(planned.get("reference", "")) == Path(source).expanduser().absolute()
    return planned.get("options", {}) if same else {}
