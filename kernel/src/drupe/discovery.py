"""Discovery: find the installed plugins, check that they fit this kernel, and load their entry modules."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from types import FunctionType, MethodType, ModuleType
from typing import NoReturn

import pluggy
from stevedore.extension import ExtensionManager

from drupe.containment import Plugin, one_line, place, timed, warn
from drupe.errors import nearest
from drupe.hookspecs import ALLOW_LIST, PROJECT
from drupe.requirements import is_met, lacking

GROUP = "drupe.plugins"
KERNEL = "drupe-kernel"
VERSION = metadata.version(KERNEL)
DEFAULTS = "drupe"
"""The distribution whose requirements are the plugins that ship with Drupe."""
Candidate = tuple[Plugin, metadata.EntryPoint, list[str]]
"""A plugin, its entry point, and what its distribution requires."""


def discover(manager: pluggy.PluginManager) -> list[Plugin]:
    """Load every installed plugin into `manager`, in the order of names; those that ship with Drupe come first."""
    listed, candidates = _listed(), _candidates(default_plugins())
    for plugin, entry, requirements in candidates:
        if plugin.shipped or listed is None or canonical(plugin.distribution) in listed:
            with timed(plugin, "say what it brings"):
                _load(manager, plugin, entry, requirements)
        else:
            plugin.reason, plugin.left_out = f"{ALLOW_LIST} leaves it out", True
            plugin.cure = f"add {plugin.distribution} to {ALLOW_LIST}"
    plugins = [plugin for plugin, _, _ in candidates]
    _refuse_unknown_hooks(manager, plugins)
    _tell_of_unmatched(listed or {}, plugins)
    return plugins


def _candidates(shipped: set[str]) -> list[Candidate]:
    """What is installed, each plugin of a distribution once. shipped: the distributions that ship with Drupe.

    A distribution parses its metadata each time that it is asked for anything, so it is asked once.
    """
    found: dict[tuple[str, str], Candidate] = {}
    for distribution in metadata.distributions():
        try:
            entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
            about = distribution.metadata if entries else None
        except (TypeError, ValueError) as error:  # not a table, or not text
            warn(f"what is installed as {getattr(distribution, '_path', '?')} cannot be read: {one_line(error)}")
            continue
        if about and (name := about["Name"]):  # what was half removed may have none
            for entry in entries:
                plugin = Plugin(entry.name, name, about["Version"], shipped=canonical(name) in shipped)
                plugin.modules.add(re.split("[.:]", entry.value)[0])
                found.setdefault((entry.name, canonical(name)), (plugin, entry, about.get_all("Requires-Dist") or []))
    return sorted(found.values(), key=lambda each: (not each[0].shipped, each[0].name, each[0].distribution))


def _listed() -> dict[str, str] | None:
    """The distributions in DRUPE_PLUGINS, as they are compared and as they are typed; None where it is not set."""
    listed = os.environ.get(ALLOW_LIST)
    return None if listed is None else {canonical(name): name for name in listed.replace(",", " ").split()}


def _tell_of_unmatched(listed: Mapping[str, str], plugins: Iterable[Plugin]) -> None:
    """Tell the user of names in DRUPE_PLUGINS that fit no distribution; a plugin's own name is none, nor a version."""
    distributions = {canonical(plugin.distribution): plugin.distribution for plugin in plugins}
    known = {canonical(plugin.name): plugin.distribution for plugin in plugins} | distributions
    for typed in (typed for name, typed in listed.items() if name not in distributions):
        close = nearest(canonical(re.split(r"[^\w.-]", typed)[0]), known, 1)
        meant = f"; did you mean {known[close[0]]}?" if close else ""
        warn(f"{ALLOW_LIST} names '{typed}', and no installed distribution of that name has a plugin{meant}")


def default_plugins() -> set[str]:
    """The distributions that `drupe` itself requires."""
    from packaging.requirements import Requirement

    try:
        requirements = metadata.requires(DEFAULTS) or []
    except metadata.PackageNotFoundError:
        return set()
    return {canonical(Requirement(text).name) for text in requirements if "extra ==" not in text}


def canonical(name: str) -> str:
    """A distribution's name as packaging tools compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


class _OneEntry(ExtensionManager[ModuleType]):
    """stevedore's manager for one entry alone: other distributions may have entries of the same name."""

    def __init__(self, entry: metadata.EntryPoint) -> None:
        self._entry = entry
        super().__init__(entry.group, on_load_failure_callback=_pass_on)

    def list_entry_points(self) -> list[metadata.EntryPoint]:
        return [self._entry]


def _pass_on(manager: object, entry: metadata.EntryPoint, error: BaseException) -> NoReturn:
    """Raise what stevedore would have logged: `_load` contains it."""
    raise error


def _load(
    manager: pluggy.PluginManager, plugin: Plugin, entry: metadata.EntryPoint, requirements: Iterable[str]
) -> None:
    """Check, import and register one plugin; whatever goes wrong is its own."""
    if manager.has_plugin(plugin.name):
        plugin.cure = plugin.removal
        return plugin.fail(f"another distribution already brings a plugin called '{plugin.name}'")
    try:
        if wanted := next((text for text in requirements if not _met(text)), None):
            fitting = f"pip install -U {plugin.distribution} '{KERNEL}=={VERSION}' (a release for this kernel)"
            plugin.cure = f"{fitting}, or {plugin.removal}"  # the kernel itself stays, for the other plugins
            return plugin.fail(f"it wants {wanted}; this is {VERSION}")
        with contextlib.redirect_stdout(plugin.overheard):
            (extension,) = _OneEntry(entry)
            module: ModuleType = extension.plugin  # type: ignore[assignment]  # stevedore calls any object a class
            if manager.is_registered(module):
                raise ValueError(f"its module {module.__name__} is the plugin '{manager.get_name(module)}' already")
            _refuse_unmarked(module, manager.hook)
            with contextlib.suppress(ValueError):  # most plugins declare no hook
                manager.add_hookspecs(module)
            manager.register(module, name=plugin.name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may do anything when it is imported, exit included
        if manager.has_plugin(plugin.name):
            manager.unregister(name=plugin.name)
        plugin.fail(one_line(error), error, place(error, plugin))


def _refuse_unmarked(module: ModuleType, hooks: object) -> None:
    """Raise TypeError for what is named as a hook and is no function that is marked as one: nobody would call it.

    hooks: has what is declared by now as attributes.
    """
    for name, value in vars(module).items():
        named = name.startswith(f"{PROJECT}_") and (callable(value) or hasattr(hooks, name))
        if named and not isinstance(value, FunctionType | MethodType):
            raise TypeError(f"its {name} is not a function, and a hook is one that is marked with @hookimpl")
        if named and not any(hasattr(value, f"{PROJECT}_{mark}") for mark in ("impl", "spec")):
            at = f"{value.__code__.co_filename}:{value.__code__.co_firstlineno}"
            raise TypeError(f"its function {name} is not marked with @hookimpl ({at})")


def _refuse_unknown_hooks(manager: pluggy.PluginManager, plugins: Iterable[Plugin]) -> None:
    """Take out plugins that implement a hook which neither the kernel nor a plugin declares."""
    known = {name for name, caller in vars(manager.hook).items() if caller.has_spec()}
    for plugin in plugins:
        callers = manager.get_hookcallers(manager.get_plugin(plugin.name)) if manager.has_plugin(plugin.name) else None
        unknown = next((caller.name for caller in callers or () if not caller.has_spec()), None)
        if unknown and not plugin.reason:
            manager.unregister(name=plugin.name)
            why = f"; did you mean {meant[0]}?" if (meant := nearest(unknown, known, 1)) else ""
            if missing := ", ".join(lacking(plugin.distribution)):  # what declares the hook is among them
                why, plugin.cure = f"; {missing} is not installed", f"install {missing}, or {plugin.removal}"
            plugin.fail(f"unknown hook '{unknown}'{why}")


def _met(requirement: str) -> bool:
    """Whether this kernel meets a requirement, or it is on something else.

    The usual form is read without packaging, which is slow to import.
    """
    if bounds := re.fullmatch(rf"{KERNEL}<(\d+)\.(\d+),>=(\d+)\.(\d+)", requirement):
        above, below, *lowest = map(int, bounds.groups())
        return lowest <= [int(part) for part in VERSION.split(".")[:2]] < [above, below]
    return not re.match(rf"{KERNEL}(?![\w-])", canonical(requirement)) or is_met(requirement)
