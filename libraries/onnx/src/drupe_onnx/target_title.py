"""The title of a target in messages: its provider, and the plugin that brings the provider."""

from __future__ import annotations

from drupe.api import Plugin, Target, registry


def target_title(target: Target) -> str:
    """The provider's name with distribution and version: "'acme' of acme-npu 1.0"."""
    plugin = plugin_of(target)
    return f"'{target.provider}'" + (f" of {plugin.title}" if plugin else "")


def plugin_of(target: Target) -> Plugin | None:
    """The plugin that brings the provider; None for a target that no plugin brings."""
    providers = registry().providers
    return providers.find(target.provider).plugin if target.provider in providers else None
