"""What the user has asked of a plugin: by its provider, by its options, or by choices that it added to an option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drupe.api import flag, several

if TYPE_CHECKING:
    from drupe.api import ExecutionProvider, Plugin, Registry, Request


def asked_for(plugin: Plugin, request: Request, provider: ExecutionProvider, found: Registry) -> bool:
    """Whether the user has asked for a plugin, by one of its options or by its provider."""
    own_provider = found.providers.find(provider.name).plugin is plugin
    return own_provider or bool(own_options(plugin, request.options, found))


def unanswered(options: Mapping[str, Any], found: Registry) -> dict[str, str]:
    """The user's options that nobody answers, as typed, with a sentence on the plugin that brings option or choice.

    The options of plugins that ship with Drupe are left out: several of those plugins read them.
    """
    told = {}
    for name, value in options.items():
        for option, plugin in found.owners.get(name, ()):
            if name in own_options(plugin, options, found) and (option.extends or not plugin.shipped):
                typed = " ".join((flag(name), *map(str, several(value))))
                told[typed] = f"; {typed} is an option of {plugin.title}, which offers no pass for it here"
    return told


def own_options(plugin: Plugin, options: Mapping[str, Any], found: Registry) -> set[str]:
    """The user's options that belong to the plugin, or whose value is a choice that the plugin has added."""
    return {
        name
        for name, value in options.items()
        for option, owner in found.owners.get(name, ())
        if owner is plugin and (not option.extends or {*several(value)} & {*option.choices})
    }
