"""Plan: the ordered list of configured passes for a source and a target, as a value that goes to JSON and back."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from drupe.errors import unknown


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedSource(_Value):
    """What is optimized. fingerprint: of the model that the plan was made for; empty where any will do."""

    reference: str
    options: dict[str, Any] = Field(default_factory=dict, description="how it is found: revision, cache_dir, ...")
    kind: str = ""
    task: str | None = None
    parts: dict[str, dict[str, str]] = Field(default_factory=dict)
    fingerprint: str = ""


class PlannedTarget(_Value):
    """What it is made for. runtime_version: of the table that the plan was made with."""

    provider: str
    precision: str = ""
    runtime_version: str = ""


class PlannedPass(_Value):
    """A pass with its configuration; keys that are left out have the pass's defaults.

    parts: roles of the parts that it is for; empty for all. stage: the recipe's stage that it fills. placed_by,
    brought_by, amended_by: the distributions that put it there, hold its code, and changed the plan on the way.
    """

    name: str
    config: dict[str, Any] = Field(default_factory=dict)
    parts: tuple[str, ...] = ()
    stage: str = ""
    placed_by: str = ""
    brought_by: str = ""
    revision: int = 0
    amended_by: tuple[str, ...] = ()


class PlannedCheck(_Value):
    """How the finished package is tried. evaluator: compares it with its source; None where nothing does."""

    run: bool = True
    required: bool = False
    evaluator: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)


class Plan(_Value):
    """All that decides on a package. Two runs of one plan on one machine make the same bytes.

    options: what the user asked for, for the record; the passes' configurations hold what came of it.
    plugins: the versions of the distributions that the plan uses. amended_by: the distributions that changed it when it
    was composed.
    """

    version: Literal[1] = 1
    source: PlannedSource
    target: PlannedTarget
    passes: tuple[PlannedPass, ...]
    check: PlannedCheck = Field(default_factory=PlannedCheck)
    recipe: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    threads: int = Field(0, ge=0, le=256, description="0 stands for all that the process may use")
    plugins: dict[str, str] = Field(default_factory=dict)
    amended_by: tuple[str, ...] = ()

    def but(self, **changes: Any) -> Plan:
        """This plan with some fields changed, checked anew."""
        return type(self).model_validate({**self.model_dump(), **changes})

    def configured(self, name: str, **config: Any) -> Plan:
        """This plan with keys of a pass's configuration changed, wherever the pass stands in it."""
        self._find(name)
        passes = [
            each.model_copy(update={"config": {**each.config, **config}} if each.name == name else {})
            for each in self.passes
        ]
        return self.but(passes=passes)

    def without(self, name: str) -> Plan:
        """This plan without a pass."""
        self._find(name)
        return self.but(passes=[each for each in self.passes if each.name != name])

    def _find(self, name: str) -> None:
        names = [each.name for each in self.passes]
        if name not in names:
            raise unknown("pass of this plan", name, names)

    @property
    def chain(self) -> str:
        """The names of its passes, for a person."""
        return " > ".join(each.name for each in self.passes) or "no pass"
