"""Draft: a plan that is being composed: passes, one after the other, and the model as it will be after them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from drupe.api import PlannedPass, UsageError, flag, follow, make_ready

if TYPE_CHECKING:
    from drupe.api import Entry, ExecutionProvider, Model, Pass, Registry, Request, Step, Target


@dataclass
class Draft:
    """A plan in the making. model: the source as it will be after the passes so far. reads: options that the
    passes depend on. checks: options that the closing check depends on."""

    request: Request
    target: Target
    provider: ExecutionProvider
    found: Registry
    model: Model
    passes: list[PlannedPass] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)
    because: str = ""
    """Why a stage needed no passes, as its claim says."""
    checks: set[str] = field(default_factory=set)

    def add(self, step: Step, stage: str, placed_by: str) -> None:
        """Append a step, with the user's options in its configuration."""
        asked = {key: self.request.options[name] for key, name in step.options.items() if name in self.request.options}
        own = self.request.settings.get(step.name, {})
        self.reads.update(step.options.values())
        entry = find_pass(step.name, placed_by, self.found)
        planned = PlannedPass(
            name=step.name,
            config={**step.config, **asked, **own},
            parts=step.parts,
            stage=stage,
            placed_by=placed_by,
            brought_by=entry.plugin.title,
        )
        typed = {key: flag(name) for key, name in step.options.items()} | {
            key: f"--set {step.name}.{key}" for key in own
        }
        ready = make_ready(planned, self.found, typed)
        stated = ready.config.model_dump(mode="json", round_trip=True, exclude_unset=True)
        planned = planned.model_copy(update={"config": stated, "revision": ready.runner.revision})
        self.passes.append(planned)
        self.steps.append(step)
        self.model = follow(replace(ready, planned=planned), self.model, self.found, self.chain)

    @property
    def chain(self) -> str:
        """The names of the passes so far, for a person."""
        return " > ".join(each.name for each in self.passes)


def find_pass(name: str, placed_by: str, found: Registry) -> Entry[Pass]:
    """A pass by name. Raises a UsageError that names the plugin that placed the pass if no pass has this name."""
    try:
        return found.passes.find(name)
    except UsageError as error:
        error.where = f"a plan by {placed_by}"
        raise
