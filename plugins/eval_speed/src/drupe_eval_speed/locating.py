"""Locating: a package to measure, with the target and the runtime that it runs on here."""

from __future__ import annotations

from dataclasses import dataclass

from drupe.api import Model, Registry, Runtime, Target, provider_of, resolve_package, runtime_for, target_of


@dataclass(frozen=True)
class Located:
    """A package and what runs it. provider: its name."""

    model: Model
    provider: str
    target: Target
    runtime: Runtime


def located(package: str, provider: str | None, found: Registry) -> Located:
    """A package, found and fit to run here. Raises the error of one that is not."""
    model = resolve_package(package, found)
    chosen = provider_of(model, provider, found)
    target = target_of(chosen, found)
    return Located(model, chosen.name, target, runtime_for(model, target, chosen, found))
