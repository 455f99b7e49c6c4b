"""A plan out of a document, such as a drupe.json; what is wrong with one is said with its place."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from drupe.api import Plan, PlannedCheck, PlannedPass, PlannedSource, PlannedTarget, UsageError, unknown
from drupe_commands.wanted_values import wanted_in_place


def plan_from(document: Any, where: str) -> Plan:
    """The plan in a JSON document: the document itself, or what its key "plan" holds, as in drupe.json.

    Raises UsageError that names the place of what is wrong.
    """
    inside = isinstance(document, dict) and isinstance(document.get("plan"), dict)
    try:
        return Plan.model_validate(document["plan"] if inside else document)
    except ValidationError as error:
        # A misspelt key is unknown, and the right one is missing: the first is the cause.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        missing = first["type"] == "missing"
        parts = first["loc"][:-1] if missing else first["loc"]
        place = ".".join(map(str, (("plan",) if inside else ()) + parts)) or "its top"
        if first["type"] == "extra_forbidden":
            owner = _fields_at(first["loc"][:-1])
            raise unknown("key", str(first["loc"][-1]), owner, where=f"{where}, at {place}") from None
        raise UsageError(
            f"the key '{first['loc'][-1]}' is missing" if missing else wanted_in_place(first),
            where=f"{where}, at {place}",
            cure="drupe optimize ... --save-plan FILE writes a plan that is right",
        ) from None


def _fields_at(place: tuple[int | str, ...]) -> list[str]:
    """The keys that there are at a place in a plan."""
    owner: type[BaseModel] = Plan
    for part in place:
        if isinstance(part, str) and part in owner.model_fields:
            owner = _HOLDS.get(part, owner)
    return list(owner.model_fields)


_HOLDS: dict[str, type[BaseModel]] = {
    "source": PlannedSource,
    "target": PlannedTarget,
    "passes": PlannedPass,
    "check": PlannedCheck,
}
