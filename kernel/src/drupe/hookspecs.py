"""Every hook that a plugin can implement.

A plugin is a light module of hook implementations, named by an entry point in the group `drupe.plugins`::

    from drupe.api import Ref, hookimpl

    @hookimpl
    def drupe_passes():
        return [Ref("sign", "acme_sign.passes:Sign", "adds a signature")]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from drupe.events import Event
    from drupe.model import Model
    from drupe.plan import Plan, Recipe, Request

PROJECT = "drupe"
ALLOW_LIST = "DRUPE_PLUGINS"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class Ref:
    """What exists, known without importing it: a name, where it is ("module:Object"), one line on what it is."""

    name: str
    target: str
    summary: str


@hookspec
def drupe_model_kinds() -> list[Ref]:  # type: ignore[empty-body]
    """Kinds of model; each target is a ModelKind class."""


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
def drupe_commands() -> list[Ref]:  # type: ignore[empty-body]
    """Commands of the `drupe` program; each target is a typer app, or a function with typer annotations."""


@hookspec
def drupe_resolve_model(reference: str, options: Mapping[str, Any]) -> Model | None:
    """Make a Model of what a user typed, or None for what is not yours.

    All plugins are asked; two that claim one reference are an error that names both. Raise ModelError for what would be
    yours but is broken: it is shown where no other plugin takes the reference.
    """


@hookspec
def drupe_amend_recipe(recipe: Recipe, request: Request) -> Recipe | None:
    """Add steps to a provider's recipe, or change them, before the request's options say which are taken; None to
    leave it. With `when`, a step may bring a value that an option has not had. Plugins are asked in the order of names.
    """


@hookspec
def drupe_amend_plan(plan: Plan, request: Request) -> Plan | None:
    """Refine the plan that a recipe proposed, or None to leave it; the kernel checks the result."""


@hookspec
def drupe_observe(event: Event) -> None:
    """Watch a run: see `drupe.events`. An exception is reported and does not stop the run."""
