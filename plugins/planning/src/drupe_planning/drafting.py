"""Drafting: the passes of a plan, from the recipe's stages and the claims on them, or as the user named them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from drupe.api import (
    DrupeError,
    PlanError,
    PlannedPass,
    PluginError,
    Step,
    UsageError,
    flag,
    follow,
    make_ready,
    replace,
)
from drupe_planning.claiming import claim_for
from drupe_planning.draft import Draft, reporting
from drupe_planning.unread_numerics import refuse_unread_numerics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drupe.api import ExecutionProvider, Model, Recipe, Registry, Request, Target


def drafted(request: Request, source: Model, provider: ExecutionProvider, target: Target, found: Registry) -> Draft:
    """The draft with all its passes.

    If the user gave options as keys of passes, all passes are placed again with these options.
    """
    draft = Draft(request, target, provider, found, source)
    _place(draft)
    if implied := _implied_options(draft):
        draft = Draft(replace(request, options={**implied, **request.options}), target, provider, found, source)
        _place(draft)
    return draft


def _place(draft: Draft) -> None:
    """Add the passes that the user named, or those of the provider's recipe for the precision."""
    if not draft.request.passes:
        draft.recipe = _recipe_for(draft.request.precision, draft.provider)
        _fill(draft, draft.recipe)
        return
    _refuse_unknown(draft)
    source = draft.model
    for step in draft.request.passes:
        _add(draft, _as_composed(step, source, draft), "", "the user")


def _refuse_unknown(draft: Draft) -> None:
    """Raise the error of the first pass of the user's that there is not, with the names of the others."""
    errors: dict[str, UsageError] = {}
    for step in draft.request.passes:
        try:
            draft.found.passes.find(step.name)
        except UsageError as error:
            errors[step.name] = error
    if not errors:
        return
    first, *others = errors
    if others:
        errors[first].what += f"; unknown as well: {', '.join(map(repr, others))}"
    raise errors[first]


def _recipe_for(precision: str, provider: ExecutionProvider) -> Recipe:
    """The provider's recipe for a precision."""
    recipes = provider.recipes()
    recipe = next((each for each in recipes if each.precision == precision), None)
    if recipe is None:
        known = dict.fromkeys(each.precision for each in recipes)
        raise UsageError(
            f"the provider '{provider.name}' has no recipe for precision '{precision}'",
            cure=f"--precision {' or '.join(known)}",
        )
    return recipe


def _fill(draft: Draft, recipe: Recipe) -> None:
    """Add the steps of every stage of a recipe."""
    owner = draft.found.providers.find(draft.provider.name).plugin
    for stage in recipe.stages:
        if isinstance(stage, Step):
            _add_of_plugin(draft, stage, "", owner.distribution)
            continue
        claimed = claim_for(stage, draft)
        refuse_unread_numerics(stage, claimed, draft)
        if claimed:
            plugin, claim = claimed
            draft.reads.update(claim.reads)
            draft.because = claim.because or draft.because
            for step in claim.steps:
                handed_on = step.config.keys() & stage.numerics.keys()
                blamed: dict[str, str] = {}
                if plugin.shipped and handed_on:  # what ships with Drupe hands on what the recipe says
                    draft.find_pass(step.name, plugin.distribution)
                    draft.refuse_misspelt(step.name, handed_on, owner.distribution)
                    blamed = dict.fromkeys(handed_on, owner.distribution)
                _add_of_plugin(draft, step, stage.name, plugin.distribution, blamed)


def _add_of_plugin(
    draft: Draft, step: Step, stage: str, placed_by: str, blamed: Mapping[str, str] | None = None
) -> None:
    """Append a step of a plugin. Errors in what a plugin itself says name the plugin.

    blamed: for a key, the distribution that states it, where that is not `placed_by`.
    """
    draft.refuse_misspelt(step.name, (*step.config, *step.options), placed_by)
    owners = dict.fromkeys(step.config, placed_by) | dict(blamed or {})
    try:
        _add(draft, step, stage, placed_by, {key: f"the plan of {owner}" for key, owner in owners.items()})
    except UsageError as error:
        for owner in owners.values():
            if error.where == f"the plan of {owner}":
                raise PluginError(f"{owner} gives the pass '{step.name}' {error.what}", cure=reporting(owner)) from None
        error.where = error.where or f"a plan by {placed_by}"
        raise
    except PlanError as error:
        if not any(plugin.shipped and plugin.distribution == placed_by for plugin in draft.found.plugins):
            error.what += f" ({placed_by} has placed it there)"
        raise


def _add(draft: Draft, step: Step, stage: str, placed_by: str, stated: Mapping[str, str] | None = None) -> None:
    """Append a step, with the user's options in its configuration. stated: for keys of the step, who states them."""
    options, own = draft.request.options, draft.request.settings.get(step.name, {})
    asked = {key: options[name] for key, name in step.options.items() if name in options}
    draft.reads.update(step.options.values())
    planned = PlannedPass(
        name=step.name,
        config={**step.config, **asked, **own},
        parts=step.parts,
        stage=stage,
        placed_by=placed_by,
        brought_by=draft.find_pass(step.name, placed_by).plugin.title,
    )
    typed = {key: flag(name) for key, name in step.options.items() if key in asked}
    typed |= {key: f"--set {step.name}.{key}" for key in own}
    ready = make_ready(planned, draft.found, {**(stated or {}), **typed})
    config = ready.config.model_dump(mode="json", round_trip=True, exclude_unset=True)
    planned = planned.model_copy(update={"config": config, "revision": ready.runner.revision})
    draft.passes.append(planned)
    draft.steps.append(step)
    draft.model = follow(replace(ready, planned=planned), draft.model, draft.found, draft.chain)


def _as_composed(step: Step, source: Model, draft: Draft) -> Step:
    """A step that the user named, with the configuration that the recipe gives to a pass of that name, if it has one.

    A key with the name of an option is set by that option.
    """
    found = draft.found
    options = {key: key for key in found.passes.make(step.name).Config.model_fields if key in found.options}
    for other in _offered(source, draft):
        if other.name == step.name:
            return replace(step, config={**other.config, **step.config}, options={**options, **other.options})
    return replace(step, options={**options, **step.options})


def _offered(source: Model, draft: Draft) -> list[Step]:
    """The steps of the recipe that the request would have had, as far as they can be found for this source."""
    request = replace(draft.request, passes=())
    offered = Draft(request, draft.target, draft.provider, draft.found, source)
    with contextlib.suppress(DrupeError):  # a model that only the user's own passes can take
        _fill(offered, _recipe_for(request.precision, draft.provider))
    return offered.steps


def _implied_options(draft: Draft) -> dict[str, Any]:
    """The options that the user gave as keys of passes (`--set quantize-weights.block_size=64`).

    Other passes of the recipe read the same option: the matrices' schemes, say, are decided before they are quantized.
    """
    settings, given = draft.request.settings, draft.request.options
    return {
        step.options[key]: value
        for step in draft.steps
        for key, value in settings.get(step.name, {}).items()
        if key in step.options and step.options[key] not in given
    }
