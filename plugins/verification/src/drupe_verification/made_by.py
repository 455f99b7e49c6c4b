"""How a package was made: what of its plan decides what the model computes, whatever its precision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe.api import RECORD, Plan, PlannedPass, Record, Registry, field

Imports = Mapping[str, Mapping[str, Any]]
"""Configurations of passes, by the pass's name."""
TRAINED = "trained"
"""The fact that a pass ensures which trains the weights."""


class MadeBy(Record):
    """What of a package's plan decides what the model computes, so that the reference is made in the same way.

    imports: the configuration of each pass that imports the source. trainings: the passes that train it.
    """

    imports: Imports = field(default_factory=dict)
    trainings: tuple[PlannedPass, ...] = ()

    @classmethod
    def of(cls, plan: Plan, found: Registry) -> MadeBy:
        imports = {each.name: each.config for each in plan.passes if each.stage == "import"}
        return cls(imports, tuple(each for each in plan.passes if _trains(each.name, found)))

    def as_json(self) -> dict[str, Any]:
        return {"imports": self.imports, "trainings": [each.model_dump(mode="json") for each in self.trainings]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> MadeBy:
        return cls(document["imports"], tuple(map(PlannedPass.model_validate, document["trainings"])))

    def alike(self, plan: Plan) -> Plan:
        """A plan of a reference, importing and training the source as the package's plan did.

        What the reference's own recipe decides stays. The result of a training comes from the cache.
        """
        for each in plan.passes:
            if each.stage == "import" and each.name in self.imports:
                plan = plan.configured(each.name, **{**self.imports[each.name], **each.config})
        return plan.model_copy(update={"passes": (*self.trainings, *plan.passes)})


def _trains(name: str, found: Registry) -> bool:
    """Whether a pass trains the weights."""
    return name in found.passes and TRAINED in found.passes.find(name).resolve().ensures.stated


def recorded_plan(package: str) -> Plan | None:
    """The plan that a package was made with; None where it has no record."""
    try:
        record = json.loads((Path(package) / RECORD).read_text(encoding="utf-8"))
        return Plan.model_validate(record["plan"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
