"""Tables: the things that plugins bring, each known by its Ref and imported when it is used."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

from drupe.containment import Plugin, call, one_line, timed
from drupe.errors import DrupeError, PlanError, PluginError, unknown
from drupe.hookspecs import Ref
from drupe.values.record import Record
from drupe.values.typed import misfit

T = TypeVar("T")
Result = TypeVar("Result")


class Entry(Record, Generic[T]):
    """A Ref and the plugin that brought it. contract: the class of drupe.api that it extends. guarded: see Table."""

    ref: Ref
    plugin: Plugin
    what: str
    contract: str = ""
    guarded: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What it is and whose, for a person."""
        return f"the {self.what} '{self.ref.name}' of {self.plugin.title}"

    def right(self, name: str) -> tuple[bool, bool]:
        """What right it has to a name: what ships with Drupe has most, then what is called so itself."""
        return self.plugin.shipped, self.ref.name.casefold() == name.casefold()

    def resolve(self) -> type[T]:
        """Import what the Ref points at. Raises PluginError where that is not what the Ref says."""
        module, _, name = self.ref.target.partition(":")
        with timed(self.plugin, f"import its {self.what} '{self.ref.name}'"):
            found: type[T] = self._call("imported", lambda: getattr(importlib.import_module(module), name))
        if self.contract:
            self._refuse_wrong(found)
        return found

    def make(self) -> T:
        """An instance. Raises PluginError where it cannot be made, as where a method of the contract is missing."""
        made = self._call("made", self.resolve())
        for name in self.guarded:
            setattr(made, name, partial(call, self.plugin, f"{name}() of {self.title}", getattr(made, name)))
        return made

    def error(self, what: str, where: str | None = None, cause: BaseException | None = None) -> PluginError:
        """The error of what is not as it should be. where: the Ref's target, where nothing better is known."""
        return PluginError(f"{self.title} {what}", where=where or self.ref.target, cure=self.plugin.mending(cause))

    def _call(self, done: str, function: Callable[[], Result]) -> Result:
        try:
            return call(self.plugin, "", function)
        except DrupeError as error:
            raise self.error(f"cannot be {done}: {one_line(error.__cause__ or error)}", error.where, error) from error

    def _refuse_wrong(self, found: Any) -> None:
        """Raise PluginError for what is not a class of the contract, or has another name than the Ref."""
        contract = getattr(importlib.import_module("drupe.api"), self.contract)
        if not isinstance(found, type) or not issubclass(found, contract):
            raise self.error(f"is not a class that extends drupe.api.{self.contract}")
        if wrong := misfit(found, contract):
            raise self.error(wrong)
        if found.name != self.ref.name:  # type: ignore[attr-defined]  # which every contract has
            raise self.error(f"calls itself '{found.name}'; both names must be one")  # type: ignore[attr-defined]


class Table(Generic[T]):
    """The things of one sort that plugins bring, by name. hook: lists them. contract: see Entry.

    listed_by: the command that lists them for a user. guarded: methods whose errors name the plugin, whoever
    calls them.
    """

    guarded: tuple[str, ...] = ()

    def __init__(self, what: str, hook: str, contract: str = "", listed_by: str = "drupe plugins") -> None:
        self.what, self.listed_by = what, listed_by
        self.hook = hook
        self.contract = contract
        self.entries: dict[str, list[Entry[T]]] = {}
        self.missing: Callable[[str], str] = lambda name: ""

    def add(self, ref: Ref, plugin: Plugin) -> None:
        """Take in what a plugin brings. Of two things that want one name the user is told who does not have it."""
        plugin.modules.add(re.split("[.:]", ref.target)[0])
        entry = Entry[T](ref, plugin, self.what, self.contract, self.guarded)
        for name in sorted(ref.names):
            for rival in self._called(name):
                worse, better = sorted((entry, rival), key=lambda each: each.right(name))
                why = "brings one of that name" if better.right(name) > worse.right(name) else "claims it as well"
                what = f"the name '{name}' for its {self.what}"
                worse.plugin.remark(f"cannot have {what}: {better.plugin.distribution} {why}")
        if plugin.shipped or not any(each.plugin.shipped for each in self._called(ref.name)):
            self.entries.setdefault(ref.name, []).append(entry)

    def _called(self, name: str) -> list[Entry[T]]:
        """What wants the name, those that have the best right to it last."""
        return sorted((each for each in self if name.casefold() in each.ref.names), key=lambda each: each.right(name))

    def drop(self, plugin: Plugin) -> None:
        """Forget what a plugin has brought."""
        kept = {name: [each for each in entries if each.plugin is not plugin] for name, entries in self.entries.items()}
        self.entries = {name: entries for name, entries in kept.items() if entries}

    def __iter__(self) -> Iterator[Entry[T]]:
        """Every entry, in the order of names; two that claim one name are both there."""
        for name in sorted(self.entries):
            yield from self.entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def find(self, name: str) -> Entry[T]:
        """What answers to `name`; UsageError where nothing does, PluginError where what two plugins bring does.

        Upper and lower case are the same. See `Entry.right` for which of several has the name.
        """
        called = self._called(name)
        entries = [each for each in called if each.right(name) == called[-1].right(name)]
        if not entries:
            error = unknown(self.what, name, self.entries, cure=f"{self.listed_by} lists what is installed")
            error.what += self.missing(name)
            raise error
        if len(entries) > 1:
            owners = " and ".join(f"{entry.plugin.distribution} ({entry.ref.target})" for entry in entries)
            own = " or ".join(sorted({entry.ref.name for entry in entries}))
            away = " or ".join(dict.fromkeys(entry.plugin.removal for entry in entries))
            cure = f"name one by its own name: {own}" if " or " in own else away
            raise PluginError(f"the {self.what} '{name}' is claimed by {owners}", cure=cure)
        return entries[0]

    def make(self, name: str) -> T:
        """An instance of what is called `name`."""
        return self.find(name).make()

    def preferred(self) -> T | None:
        """What is used where one is enough: what ships with Drupe, else the first there is; None where nothing is."""
        entries = sorted(self, key=lambda each: not each.plugin.shipped)
        return entries[0].make() if entries else None

    def needed(self, does: str, distribution: str) -> T:
        """The same. Raises PlanError where nothing is. does: what nobody can do then; distribution: brings one."""
        if (made := self.preferred()) is None:
            raise PlanError(f"no plugin is installed that {does}", cure=f"pip install {distribution}")
        return made
