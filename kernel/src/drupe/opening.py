"""Opening: which runtime opens a model on a target, and opening it there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drupe.containment import call, one_line, timed
from drupe.contracts.provider import ExecutionProvider
from drupe.contracts.runtime import Runtime, Session
from drupe.errors import DrupeError, PlanError, PluginError, RuntimeMissing
from drupe.registry import Registry, registry
from drupe.resolving import resolve_package
from drupe.values.model import Model
from drupe.values.target import Target


def default_provider(found: Registry) -> ExecutionProvider:
    """What the machine offers: of the providers whose device is here the one with the highest preference.

    Those that ship with Drupe come first, whatever a third party prefers.
    """
    for entry, provider in found.sound_providers():
        try:
            if target_of(provider, found).here:
                return provider
        except DrupeError as error:
            found.disable(entry.plugin, error.what, error)
    raise PlanError("no installed provider has a device in this machine", cure="drupe providers lists what there is")


def target_of(provider: ExecutionProvider, found: Registry) -> Target:
    """The target that a provider is on this machine. Raises PluginCrash, which names the plugin, where it fails."""
    plugin = found.providers.find(provider.name).plugin
    with timed(plugin, f"look for the devices of its provider '{provider.name}'"):
        target = call(plugin, f"the provider '{provider.name}'", provider.target)
    if not isinstance(target, Target):
        raise PluginError(f"target() of the provider '{provider.name}' of {plugin.title} gave {one_line(target)}")
    return target


def runtime_for(model: Model, target: Target, provider: ExecutionProvider, found: Registry) -> Runtime:
    """The provider's preferred runtime that can open the model here. Raises RuntimeMissing where there is none."""
    if not target.here:
        raise RuntimeMissing(f"no device for '{target.provider}' is here", cure="drupe providers shows what is")
    reasons, cure = [], None
    for package in provider.packages:
        runtime = found.runtimes.make(package.runtime)
        if runtime.version() is None:
            reasons.append(f"{package.runtime} is not installed")
            cure = cure or package.install
        elif reason := runtime.refusal(model, target):
            reasons.append(reason)
        else:
            return runtime
    why = "; ".join(map(str, reasons)) or "no runtime is known for it"
    raise RuntimeMissing(f"'{target.provider}' cannot run it here: {why}", where=model.location, cure=cure)


def open_here(model: Model, target: Target, provider: ExecutionProvider, found: Registry) -> Session:
    """Open a model to measure or calibrate with: on its target, or where that is not here, on what is."""
    runner = provider if target.here else default_provider(found)
    here = target if target.here else target_of(runner, found)
    return runtime_for(model, here, runner, found).open(model, here)


def provider_of(model: Model, name: str | None, found: Registry) -> ExecutionProvider:
    """The provider that a user names, else the one that a package was made for, else what the machine offers."""
    named = name or (publisher.made_for(model) if (publisher := found.publishers.preferred()) else None)
    return found.provider(named) if named else default_provider(found)


def open(package: str | Path, *, provider: str | None = None, max_length: int | None = None) -> Any:
    """Open a package in its runtime, on the provider it was made for unless another is named.

    Gives a drupe.api.Session with what the model's task offers: `generate` and `stream` for text generation.
    max_length: room for this many tokens, prompt and answer; None for what the package asks for.
    Raises RuntimeMissing where nothing here can run it.
    """
    found = registry()
    model = resolve_package(str(package), found)
    chosen = provider_of(model, provider, found)
    target = target_of(chosen, found)
    return runtime_for(model, target, chosen, found).open(model, target, max_length=max_length)
