"""Opening: from what a user typed to a model, and from a model to a session in a runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.errors import ModelError, PluginError, RuntimeMissing
from drupe.plugins import Registry, registry
from drupe.publishing import RECORD

if TYPE_CHECKING:
    from drupe.model import Model
    from drupe.runtime import Runtime, Session
    from drupe.target import ExecutionProvider, Target

DEFAULT_PROVIDER = "cpu"


def resolve(reference: str, options: Mapping[str, Any]) -> Model:
    """The model that `reference` names. All plugins are asked, and exactly one has to know it.

    A plugin that would take it, but finds it broken, raises; that counts where no other one takes it.
    """
    found, answers, complaints = registry(), [], []
    for plugin in found.plugins:
        if plugin.reason:
            continue
        try:
            model = found.ask_one(plugin, "drupe_resolve_model", reference=reference, options=options)
        except ModelError as error:
            complaints.append(error)
        else:
            answers += [(plugin, model)] if model is not None else []
    if not answers and complaints:
        raise complaints[0]
    if not answers:
        raise ModelError(
            f"'{reference}' is not a model that any installed plugin knows",
            cure="name a checkpoint's folder or a hub id; drupe plugins lists what else could know it",
        )
    if len(answers) > 1:
        owners = " and ".join(plugin.distribution for plugin, _ in answers)
        raise PluginError(f"'{reference}' is claimed by {owners}", cure="uninstall one of them, or set DRUPE_PLUGINS")
    answer: Model = answers[0][1]
    return answer


def resolve_package(reference: str) -> Model:
    """The package in a folder. Raises ModelError for what is not there, or is no package yet."""
    if not Path(reference).exists():
        raise ModelError(f"there is no package '{reference}'", cure="drupe optimize MODEL -o OUT makes one")
    model = resolve(reference, {})
    first = {recipe.steps[0].name for recipe in registry().provider(DEFAULT_PROVIDER).recipes()}
    if model.kind in {registry().passes.make(name).requires.kind for name in first}:
        raise ModelError(
            f"'{reference}' is a model of kind '{model.kind}', not a package", cure=f"drupe optimize {reference} -o OUT"
        )
    return model


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
    why = "; ".join(reasons) or "no runtime is known for it"
    raise RuntimeMissing(f"'{target.provider}' cannot run it here: {why}", where=model.location, cure=cure)


def open_here(model: Model, target: Target, provider: ExecutionProvider, found: Registry) -> Session:
    """Open a model to measure or calibrate with: on its target, or where that is not here, on a processor."""
    runner = provider if target.here else found.provider(DEFAULT_PROVIDER)
    here = runner.target()
    return runtime_for(model, here, runner, found).open(model, here)


def open_package(reference: str, provider_name: str | None, max_length: int | None) -> Session:
    """Open what `reference` names. Raises RuntimeMissing where nothing here can run it."""
    found = registry()
    model = resolve_package(reference)
    provider = found.provider(provider_name or made_for(model) or DEFAULT_PROVIDER)
    target = provider.target()
    return runtime_for(model, target, provider, found).open(model, target, max_length=max_length)


def made_for(model: Model) -> str | None:
    """The provider that a package's own record names."""
    record = model.location / RECORD
    if not record.is_file():
        return None
    try:
        name: str = json.loads(record.read_text(encoding="utf-8"))["target"]["provider"]
    except (ValueError, KeyError, TypeError) as error:
        cure = "make the package again, or name the provider with --provider"
        raise ModelError("the package's record is damaged", where=record, cure=cure) from error
    return name
