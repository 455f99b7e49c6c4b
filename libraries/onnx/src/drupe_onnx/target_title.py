"""The title of a target in messages: its provider, and the plugin that brings the provider."""

from __future__ import annotations

from drupe.api import Plugin, Target, registry


def target_title(target: Target) -> str:
    """The provider's name with distribution and version: "'acme' of acme-npu 1.0"."""
    return provider_title(target.provider)


def provider_title(name: str) -> str:
    """The same, of a provider by its own name; the name alone where no plugin brings it."""
    plugin = plugin_of(name)
    return f"'{name}'" + (f" of {plugin.title}" if plugin else "")


def plugin_of(provider: str) -> Plugin | None:
    """The plugin that brings a provider of that name; None where no plugin does."""
    providers = registry().providers
    return providers.find(provider).plugin if provider in providers else None
