"""Locating: a model to measure, with the target and the runtime that it runs on here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from drupe.api import (
    DrupeError,
    Model,
    ModelError,
    Record,
    Registry,
    Runtime,
    RuntimeMissing,
    Target,
    provider_of,
    resolve,
    runtime_for,
    target_of,
)


class Located(Record):
    """A model and what runs it. provider: its name. rival: whether the runtime is none of a provider's."""

    model: Model
    provider: str
    target: Target
    runtime: Runtime
    rival: bool = False


def located(reference: str, provider: str | None, found: Registry) -> Located:
    """A model, found and fit to run here. Raises the error of one that is not.

    Packages run in the runtimes of their provider. Any other model runs in the first runtime that takes it, of those
    that no provider names.
    """
    model = _resolved(reference, found)
    chosen = provider_of(model, provider, found)
    target = target_of(chosen, found)
    try:
        return Located(model, chosen.name, target, runtime_for(model, target, chosen, found))
    except RuntimeMissing as error:
        if not target.here:
            raise
        return Located(model, chosen.name, target, _rival(model, target, found, error), rival=True)


def _resolved(reference: str, found: Registry) -> Model:
    if not Path(reference).exists():
        raise ModelError(
            f"there is no package '{reference}', nor another model of that name",
            cure="drupe optimize MODEL -o OUT makes a package",
        )
    return resolve(reference, {}, found)


def _rival(model: Model, target: Target, found: Registry, missing: RuntimeMissing) -> Runtime:
    """The runtime that takes the model, of those that no provider names. missing: the error where it is for a package.

    One that would take the model, but cannot run it here, raises in `refusal`; that counts where no other one takes it.
    """
    reasons, errors = [], []
    for runtime in _independent(found):
        try:
            reason = runtime.refusal(model, target)
        except DrupeError as error:
            errors.append(error)
            continue
        if reason is None and runtime.version() is not None:
            return runtime
        reasons.append(reason or f"{runtime.name} is not installed")
    if errors:
        raise errors[0]
    if found.kinds.make(model.kind).runnable:
        raise missing
    raise RuntimeMissing(
        f"nothing runs it as it is: {'; '.join(reasons) or 'no runtime for such models is installed'}",
        where=model.location,
        cure=f"drupe optimize {model.location} -o OUT, and measure OUT",
    )


def _independent(found: Registry) -> Iterator[Runtime]:
    """The runtimes that no provider names: those of other tools."""
    named = {package.runtime for _, provider in found.sound_providers() for package in provider.packages}
    return (found.runtimes.make(entry.ref.name) for entry in found.runtimes if entry.ref.name not in named)
