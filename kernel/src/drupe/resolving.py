"""Resolving: from what a user typed to a model, with kind, task, parts and facts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from drupe.containment import Plugin, one_line
from drupe.errors import DrupeError, ModelError, PluginError
from drupe.registry import Registry, refuse_unsound
from drupe.values.model import Model


def resolve(reference: str, options: Mapping[str, Any], found: Registry) -> Model:
    """The model that `reference` names. All plugins are asked, and exactly one has to know it.

    options: those of the user's that are declared with `source`. A plugin that would take it, but finds it broken,
    raises; that counts where no other one takes it.
    """
    answers: list[tuple[Plugin, Model]] = []
    complaints: list[DrupeError] = []
    for plugin in found.working:
        try:
            model = found.ask(plugin, "drupe_resolve_model", Model, reference=reference, options=options)
        except DrupeError as error:
            complaints.append(error)
            continue
        if model is not None and _is_sound(model, plugin, found):
            answers.append((plugin, model))
    if not answers and complaints:
        raise complaints[0]
    if not answers:
        raise ModelError(
            f"'{reference}' is not a model that any installed plugin knows{found.why_missing(reference)}",
            cure="name a checkpoint's folder, an .onnx or .gguf file or a hub id; drupe plugins lists other plugins",
        )
    shipped = [each for each in answers if each[0].shipped]
    if len(shipped or answers) > 1:
        owners = " and ".join(plugin.distribution for plugin, _ in shipped or answers)
        raise PluginError(f"'{reference}' is claimed by {owners}", cure=answers[-1][0].removal)
    taken, model = (shipped or answers)[0]
    for plugin, _ in answers:
        if plugin is not taken:
            plugin.remark(f"takes '{reference}' for its own, but it is a model that {taken.distribution} knows")
    return model


def from_environment(names: Iterable[str], found: Registry) -> dict[str, str]:
    """The options of these names that an environment variable sets."""
    return {name: value for name in sorted(names) if (value := os.environ.get(found.options[name].environment, ""))}


def _is_sound(model: Model, plugin: Plugin, found: Registry) -> bool:
    """Whether a model's kind, place and facts can be worked with; a plugin that made another is disabled."""
    try:
        refuse_unsound(model, f"'{model.location}'", found)
    except DrupeError as error:
        found.disable(plugin, f"drupe_resolve_model() gave a model that nothing can work with: {one_line(error)}")
        return False
    return True


def resolve_package(reference: str, found: Registry) -> Model:
    """The package, or the graph that some runtime opens, in a folder. Raises ModelError for what is none."""
    if not Path(reference).exists():
        raise ModelError(f"there is no package '{reference}'", cure="drupe optimize MODEL -o OUT makes one")
    model = resolve(reference, {}, found)
    if not found.kinds.make(model.kind).runnable:
        raise ModelError(
            f"'{reference}' is a model of kind '{model.kind}', not a package", cure=f"drupe optimize {reference} -o OUT"
        )
    return model
