"""Draft: a plan that is being composed: its passes so far, and the model as it will be after them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from drupe.api import PluginError, UsageError, unknown

if TYPE_CHECKING:
    from drupe.api import Entry, ExecutionProvider, Model, Pass, PlannedPass, Recipe, Registry, Request, Step, Target


@dataclass
class Draft:
    """A plan in the making.

    model: the source as it will be after the passes so far. recipe: where the passes are from; None where the user
    named them. reads: options that the passes depend on. checks: options that the closing check depends on.
    """

    request: Request
    target: Target
    provider: ExecutionProvider
    found: Registry
    model: Model
    recipe: Recipe | None = None
    passes: list[PlannedPass] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)
    because: str = ""
    """Why a stage needed no passes, as its claim says."""
    checks: set[str] = field(default_factory=set)

    @property
    def chain(self) -> str:
        """The names of the passes so far, for a person."""
        return " > ".join(each.name for each in self.passes)

    def find_pass(self, name: str, placed_by: str) -> Entry[Pass]:
        """A pass by name. Raises a PluginError that names the plugin that placed the pass if no pass has this name."""
        try:
            return self.found.passes.find(name)
        except UsageError as error:
            cure = f"install the plugin that brings the pass, or report it to the makers of {placed_by}"
            raise PluginError(f"{placed_by} places an {error.what}", cure=cure) from None

    def refuse_misspelt(self, name: str, keys: Iterable[str], placed_by: str) -> None:
        """Raise a PluginError that names a plugin for a key that it gives to a pass which has no such key."""
        known = self.find_pass(name, placed_by).resolve().Config.model_fields
        for key in keys:
            if key not in known:
                what = f"{placed_by} gives the pass '{name}' an {unknown('key', key, known).what}"
                raise PluginError(what, cure=reporting(placed_by))


def reporting(distribution: str) -> str:
    """The cure for what the makers of a plugin have to mend."""
    return f"report it to the makers of {distribution}, or pip uninstall {distribution}"
