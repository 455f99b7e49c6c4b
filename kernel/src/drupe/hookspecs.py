"""Every hook that a plugin can implement.

A plugin is a light module of hook implementations, named by an entry point in the group `drupe.plugins`::

    from drupe.api import Ref, hookimpl

    @hookimpl
    def drupe_passes():
        return [Ref("sign", "acme_sign.passes:Sign", "adds a signature")]

A plugin may declare hooks for others to implement: functions in its entry module that are marked with `hookspec`. What
they list, `registry().offered("sort of thing", "drupe_name_of_the_hook")` gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from drupe.values.typed import Typed

if TYPE_CHECKING:
    from drupe.values.event import Event
    from drupe.values.model import Fact, Model
    from drupe.values.option import Option
    from drupe.values.plan import Plan
    from drupe.values.recipe import Claim, Request, Stage
    from drupe.values.target import Target

PROJECT = "drupe"
ALLOW_LIST = "DRUPE_PLUGINS"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Ref(Typed):
    """What exists, known without importing it: a name, where it is ("module:Object"), one line on what it is.

    also: other names that it answers to. For an execution provider these are what its runtime calls it
    ("CUDAExecutionProvider"), and what else a user may type; upper and lower case are the same.
    device: of an execution provider, what `--device` calls what it drives: "cpu", "gpu" or "npu".
    preference: of several execution providers whose device is here, the one with the highest is taken where a user
    names none.
    """

    name: str
    target: str
    summary: str
    also: tuple[str, ...] = ()
    device: str = ""
    preference: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name.split() != [self.name] or len(self.summary.splitlines()) > 1:
            raise ValueError(f"a name has no spaces and a summary is one line: {self.name!r}, {self.summary!r}")

    @property
    def names(self) -> set[str]:
        """All names that it answers to, in lower case."""
        return {name.casefold() for name in (self.name, *self.also)}


@hookspec
def drupe_model_kinds() -> list[Ref]:  # type: ignore[empty-body]
    """Kinds of model; each target is a ModelKind class."""


@hookspec
def drupe_facts() -> list[Fact]:  # type: ignore[empty-body]
    """The words that passes may require and ensure of models."""


@hookspec
def drupe_tasks() -> list[Ref]:  # type: ignore[empty-body]
    """Tasks; each target is a Task class."""


@hookspec
def drupe_passes() -> list[Ref]:  # type: ignore[empty-body]
    """Passes; each target is a Pass class."""


@hookspec
def drupe_execution_providers() -> list[Ref]:  # type: ignore[empty-body]
    """Execution providers; each target is an ExecutionProvider class."""


@hookspec
def drupe_runtimes() -> list[Ref]:  # type: ignore[empty-body]
    """Runtimes; each target is a Runtime class."""


@hookspec
def drupe_evaluators() -> list[Ref]:  # type: ignore[empty-body]
    """Evaluators; each target is an Evaluator class."""


@hookspec
def drupe_planners() -> list[Ref]:  # type: ignore[empty-body]
    """Planners; each target is a Planner class. The one that ships with Drupe is taken where it is installed."""


@hookspec
def drupe_publishers() -> list[Ref]:  # type: ignore[empty-body]
    """Publishers; each target is a Publisher class. The one that ships with Drupe is taken where it is installed."""


@hookspec
def drupe_verifiers() -> list[Ref]:  # type: ignore[empty-body]
    """Verifiers; each target is a Verifier class. The one that ships with Drupe is taken where it is installed."""


@hookspec
def drupe_commands() -> list[Ref]:  # type: ignore[empty-body]
    """Commands of the `drupe` program; each target is a typer app, a class of one, or a function with annotations.

    A class is made when the command is called: it may ask the registry what is installed.
    """


@hookspec
def drupe_options() -> list[Option]:  # type: ignore[empty-body]
    """Options that the plugin's claims, passes, evaluators and models read."""


@hookspec
def drupe_resolve_model(reference: str, options: Mapping[str, Any]) -> Model | None:
    """Make a Model of what a user typed, or None for what is not yours: its kind, task, parts and facts.

    options: those that are declared with `source`. All plugins are asked; two that claim one reference are an error
    that names both. Raise ModelError for what would be yours but is broken: it is shown where no other plugin takes it.
    """


@hookspec
def drupe_claim(stage: Stage, model: Model, target: Target, request: Request) -> Claim | None:
    """Offer the steps that fill a stage of a recipe, or None where it is not yours.

    model: as it will be at that stage. The claim with the highest rank is taken; two of one rank are an error that
    names both. Raise ModelError to say why a model that would be yours cannot be done: it is shown where nobody claims.
    A plugin that does not ship with Drupe is asked where its own provider is the target, where the user gave an option
    of its own or chose it by name, where the model is of its own kind, and where the stage has to be filled and no
    plugin that ships with Drupe does.
    """


@hookspec
def drupe_amend_plan(plan: Plan, request: Request) -> Plan | None:
    """Change the plan that was composed, or None to leave it; the kernel checks the result and names the plugin in it.

    A plugin is asked where its own provider is the target, or where the user gave an option of its own.
    """


@hookspec
def drupe_observe(event: Event) -> None:
    """Watch a run. An observer that fails is reported, and is told nothing more of the run."""
