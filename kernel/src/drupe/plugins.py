"""Plugins: find them, check that they fit this kernel, load them, and keep what is broken apart."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from drupe import hookspecs
from drupe.errors import PluginError, unknown
from drupe.hookspecs import ALLOW_LIST, PROJECT, Ref

if TYPE_CHECKING:
    from importlib.metadata import PackageMetadata

    from drupe.evaluation import Evaluator
    from drupe.model import ModelKind
    from drupe.passes import Pass
    from drupe.runtime import Runtime
    from drupe.target import ExecutionProvider

GROUP = "drupe.plugins"
KERNEL = "drupe-kernel"
DEFAULTS = "drupe"
"""The distribution whose requirements are the default plugins."""

TABLES = {
    "drupe_model_kinds": "kinds",
    "drupe_passes": "passes",
    "drupe_execution_providers": "providers",
    "drupe_runtimes": "runtimes",
    "drupe_evaluators": "evaluators",
    "drupe_commands": "commands",
}
"""The hooks that list Refs, and the registry's table for each."""

T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    """An installed plugin. reason: why it is not in use, None when it is; cure: what would mend that."""

    name: str
    distribution: str
    version: str
    reason: str | None = None
    cure: str | None = None


def load(ref: Ref) -> Any:
    """Import what a Ref points at."""
    module, _, name = ref.target.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class Claim(Generic[T]):
    """A Ref and the plugin that brought it."""

    ref: Ref
    plugin: Plugin

    def resolve(self) -> type[T]:
        """Import what the Ref points at."""
        try:
            found: type[T] = load(self.ref)
        except (ImportError, AttributeError) as error:
            raise PluginError(
                f"'{self.ref.name}' of {self.plugin.distribution} {self.plugin.version} cannot be imported: {error}",
                where=self.ref.target,
                cure=_reinstall(self.plugin.distribution),
            ) from error
        return found


class Table(Generic[T]):
    """The things of one sort that plugins bring, by name."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.claims: dict[str, list[Claim[T]]] = {}

    def add(self, ref: Ref, plugin: Plugin) -> None:
        self.claims.setdefault(ref.name, []).append(Claim(ref, plugin))

    def __iter__(self) -> Iterator[Claim[T]]:
        for name in sorted(self.claims):
            yield self.claim(name)

    def claim(self, name: str) -> Claim[T]:
        """What is called `name`; UsageError where nothing is, PluginError where two are."""
        claims = self.claims.get(name)
        if not claims:
            raise unknown(
                self.what, name, self.claims, cure="drupe plugins (lists what is installed, and what failed to load)"
            )
        if len(claims) > 1:
            owners = " and ".join(f"{claim.plugin.distribution} ({claim.ref.target})" for claim in claims)
            raise PluginError(
                f"the {self.what} '{name}' is claimed by {owners}",
                cure=f"pip uninstall {claims[-1].plugin.distribution}",
            )
        return claims[0]

    def make(self, name: str) -> T:
        """An instance of what is called `name`."""
        return self.claim(name).resolve()()


@dataclass
class Registry:
    """All that the installed plugins bring, and the hooks they answer."""

    manager: pluggy.PluginManager
    plugins: list[Plugin] = field(default_factory=list)
    kinds: Table[ModelKind] = field(default_factory=lambda: Table("model kind"))
    passes: Table[Pass] = field(default_factory=lambda: Table("pass"))
    providers: Table[ExecutionProvider] = field(default_factory=lambda: Table("provider"))
    runtimes: Table[Runtime] = field(default_factory=lambda: Table("runtime"))
    evaluators: Table[Evaluator] = field(default_factory=lambda: Table("evaluator"))
    commands: Table[object] = field(default_factory=lambda: Table("command"))

    @property
    def broken(self) -> list[Plugin]:
        return [plugin for plugin in self.plugins if plugin.reason]

    def ask_one(self, plugin: Plugin, hook: str, **arguments: Any) -> Any:
        """What one plugin answers to a hook; None where it does not implement it."""
        others = [other for name, other in self.manager.list_name_plugin() if name != plugin.name]
        answers = self.manager.subset_hook_caller(hook, others)(**arguments)
        return answers[0] if answers else None

    def ask(self, hook: str, **arguments: Any) -> Iterator[tuple[Plugin, Any]]:
        """Each plugin that answers a hook with something, in the order of names, and its answer."""
        for plugin in self.plugins:
            if not plugin.reason and (answer := self.ask_one(plugin, hook, **arguments)) is not None:
                yield plugin, answer

    def provider(self, name: str) -> ExecutionProvider:
        """The provider that answers to `name`: its own, else its runtime's name for it or an alias, in any case.

        A provider that is broken stands in nobody's way but its own.
        """
        wanted = name.casefold()
        own = next((known for known in self.providers.claims if known.casefold() == wanted), None)
        if own is not None:
            return self.providers.make(own)
        owners = [claim for claim in self.sound_providers() if wanted in _spellings(claim.resolve())]
        if len(owners) > 1:
            both = " and ".join(f"'{claim.ref.name}' of {claim.plugin.distribution}" for claim in owners)
            raise PluginError(f"the provider name '{name}' is claimed by {both}", cure="name one by its own name")
        if not owners:
            raise unknown("provider", name, self.providers.claims, cure="drupe providers lists what is installed")
        return owners[0].resolve()()

    def sound_providers(self) -> Iterator[Claim[ExecutionProvider]]:
        """The providers that nobody else claims and that can be imported."""
        for name in sorted(self.providers.claims):
            with contextlib.suppress(PluginError):
                claim = self.providers.claim(name)
                claim.resolve()
                yield claim


def _spellings(provider: type[ExecutionProvider]) -> set[str]:
    return {spelling.casefold() for spelling in (provider.runtime_name, *provider.aliases)}


@functools.cache
def registry() -> Registry:
    """The registry of this process: every plugin is looked at once."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    found = Registry(manager)
    for entry, about in _candidates():
        found.plugins.append(_load(manager, entry, about))
    _read_tables(found)
    return found


def _candidates() -> list[tuple[metadata.EntryPoint, PackageMetadata]]:
    """Entry points with what their distributions say of themselves, one for each name, in the order of names.

    A distribution parses its metadata each time that it is asked for anything, so it is asked once.
    """
    allowed = _allowed()
    seen: dict[tuple[str, str], tuple[metadata.EntryPoint, PackageMetadata]] = {}
    for distribution in metadata.distributions():
        entries = [entry for entry in distribution.entry_points if entry.group == GROUP]
        if not entries:
            continue
        about = distribution.metadata
        name = canonical(about["Name"] or "")  # what was half removed may have none
        for entry in entries if name and (allowed is None or name in allowed) else ():
            seen.setdefault((entry.name, name), (entry, about))
    return [seen[key] for key in sorted(seen)]


@functools.cache
def _kernel_version() -> str:
    return metadata.version(KERNEL)


def _allowed() -> set[str] | None:
    """The distributions that may be loaded: all (None), or the defaults and those in DRUPE_PLUGINS."""
    listed = os.environ.get(ALLOW_LIST)
    if listed is None:
        return None
    return {canonical(name) for name in listed.replace(",", " ").split()} | default_plugins()


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


def _load(manager: pluggy.PluginManager, entry: metadata.EntryPoint, about: PackageMetadata) -> Plugin:
    """Check, import and register one plugin; whatever goes wrong is its own."""
    name, version = about["Name"], about["Version"]
    if manager.has_plugin(entry.name):
        reason = f"another distribution already brings a plugin called '{entry.name}'"
        return Plugin(entry.name, name, version, reason, f"pip uninstall {name}")
    try:
        if wanted := _wants_another_kernel(about.get_all("Requires-Dist") or ()):
            reason = f"it wants {wanted}; this is {_kernel_version()}"
            return Plugin(entry.name, name, version, reason, _fitting(name))
        manager.register(_import(entry), name=entry.name)
        manager.check_pending()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may do anything when it is imported, exit included
        if manager.has_plugin(entry.name):
            manager.unregister(name=entry.name)
        return Plugin(entry.name, name, version, _reason(error), _reinstall(name))
    return Plugin(entry.name, name, version)


def _import(entry: metadata.EntryPoint) -> ModuleType:
    """The entry's module, loaded by stevedore."""
    from stevedore.named import NamedExtensionManager

    failures: list[BaseException] = []
    loaded: NamedExtensionManager[ModuleType] = NamedExtensionManager(
        GROUP,
        [entry.name],
        on_load_failure_callback=lambda _manager, _entry, error: failures.append(error),
        on_missing_entrypoints_callback=lambda names: None,
    )
    for extension in loaded:
        if extension.entry_point.value == entry.value:
            return extension.plugin  # type: ignore[return-value]  # stevedore calls any object a class
    if failures:
        raise failures[0]
    module: ModuleType = entry.load()  # newer than stevedore's cache
    return module


def _wants_another_kernel(requirements: Iterable[str]) -> str | None:
    """The plugin's requirement on the kernel where this kernel does not meet it."""
    own = [text for text in requirements if canonical(text).startswith(KERNEL)]
    return next((text for text in own if not _met(text, _kernel_version())), None)


def _met(requirement: str, version: str) -> bool:
    """Whether a requirement on the kernel is met; the usual form is read without packaging, which is slow to import."""
    if bounds := re.fullmatch(rf"{KERNEL}<(\d+)\.(\d+),>=(\d+)\.(\d+)", requirement):
        above, below, *lowest = map(int, bounds.groups())
        return lowest <= [int(part) for part in version.split(".")[:2]] < [above, below]
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    return canonical(wanted.name) != KERNEL or wanted.specifier.contains(version, prereleases=True)


def _reason(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _reinstall(distribution: str) -> str:
    """What most likely mends a failed import: the distribution and its requirements, whole. A module's name would be
    a guess at a distribution's, and what is called so may be anybody's.
    """
    return f"pip install -U --force-reinstall {distribution}, or pip uninstall {distribution}"


def _fitting(distribution: str) -> str:
    """How a release for this kernel is had; the kernel itself stays, for the other plugins want it as it is."""
    kernel = f"'{KERNEL}=={_kernel_version()}'"
    return f"pip install -U {distribution} {kernel} (a release for this kernel), or pip uninstall {distribution}"


def _read_tables(found: Registry) -> None:
    """Ask each plugin what it brings; one whose hook raises is taken out whole."""
    for at, plugin in enumerate(found.plugins):
        if plugin.reason:
            continue
        try:
            refs = [(table, ref) for hook, table in TABLES.items() for ref in found.ask_one(plugin, hook) or ()]
            if strange := [ref for _, ref in refs if not isinstance(ref, Ref)]:
                raise TypeError(f"its hooks list {strange[0]!r}, which is no Ref")
        except Exception as error:
            found.manager.unregister(name=plugin.name)
            found.plugins[at] = replace(plugin, reason=_reason(error), cure=_reinstall(plugin.distribution))
            continue
        for table, ref in refs:
            getattr(found, table).add(ref, plugin)
