"""Composing: from a request and a resolved source to a plan, stage by stage, or pass by pass as the user names them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import DrupeError, Plan, PlannedCheck, PlannedSource, PlannedTarget, Step, UsageError
from drupe_planning.amending import amended_by_plugins
from drupe_planning.claiming import REQUIRED, claim_for, unclaimed
from drupe_planning.drafting import Draft
from drupe_planning.refusing import refuse_unknown_options, refuse_unread

if TYPE_CHECKING:
    from drupe.api import ExecutionProvider, Model, Recipe, Registry, Request, Target


def compose(request: Request, source: Model, provider: ExecutionProvider, target: Target, found: Registry) -> Plan:
    """The plan for a request: the provider's recipe with its stages filled, or the passes that the user named.

    Raises DrupeError, before anything runs, for passes that do not fit together and options without effect.
    """
    refuse_unknown_options(request, found)
    draft, recipe = _drafted(Draft(request, target, provider, found, source))
    if implied := _implied_options(draft):
        request = replace(request, options={**implied, **request.options})
        draft, recipe = _drafted(Draft(request, target, provider, found, source))
    plan = Plan(
        source=PlannedSource(
            reference=_absolute(request.reference),
            options=_recorded(request, found, source_only=True),
            **source.note(),
        ),
        target=PlannedTarget(
            provider=provider.name, precision=request.precision, runtime_version=target.runtime_version
        ),
        passes=tuple(draft.passes),
        check=_planned_check(draft, source),
        recipe=recipe.name if recipe else "",
        options=_recorded(request, found, source_only=False),
        threads=request.threads,
    )
    plan = amended_by_plugins(plan, draft)
    refuse_unread(draft, plan, recipe)
    return plan.model_copy(update={"plugins": _versions(plan, provider, found)})


def _drafted(draft: Draft) -> tuple[Draft, Recipe | None]:
    """The draft with all its passes, and the recipe that they are from; None where the user named the passes."""
    source = draft.model
    if draft.request.passes:
        for step in draft.request.passes:
            draft.add(_as_composed(step, source, draft), "", "the user")
        return draft, None
    recipe = recipe_for(draft.request.precision, draft.provider)
    fill(draft, recipe)
    return draft, recipe


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


def recipe_for(precision: str, provider: ExecutionProvider) -> Recipe:
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


def fill(draft: Draft, recipe: Recipe) -> None:
    """Add the steps of every stage of a recipe."""
    owner = draft.found.providers.find(draft.provider.name).plugin
    for stage in recipe.stages:
        if isinstance(stage, Step):
            draft.add(stage, "", owner.distribution)
            continue
        claimed = claim_for(stage, draft)
        if claimed is None:
            if stage.name in REQUIRED:
                raise unclaimed(stage, draft)
            continue
        plugin, claim = claimed
        draft.reads.update(claim.reads)
        draft.because = claim.because or draft.because
        for step in claim.steps:
            draft.add(step, stage.name, plugin.distribution)


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
        fill(offered, recipe_for(request.precision, draft.provider))
    return offered.steps


def _planned_check(draft: Draft, source: Model) -> PlannedCheck:
    """The check of the finished package, as the verifier plans it."""
    verifier = draft.found.verifiers.preferred()
    if verifier is None:
        return PlannedCheck(run=draft.request.verify, required=draft.request.require_check)
    planned, reads = verifier.plan(source, draft.request)
    draft.checks = set(reads)
    return planned


def _recorded(request: Request, found: Registry, *, source_only: bool) -> dict[str, Any]:
    """The user's options for the plan, without secret ones."""
    chosen = {
        name: value
        for name, value in request.options.items()
        if name in found.options and found.options[name].source == source_only and not found.options[name].secret
    }
    return {name: str(value) if isinstance(value, Path) else value for name, value in chosen.items()}


def _absolute(reference: str) -> str:
    """An absolute path, so the plan means the same in another folder; a hub id is unchanged."""
    path = Path(reference).expanduser()
    return str(path.absolute()) if path.exists() else reference


def _versions(plan: Plan, provider: ExecutionProvider, found: Registry) -> dict[str, str]:
    """The distributions that the plan uses, with their versions."""
    owners = [found.passes.find(each.name).plugin for each in plan.passes]
    owners += [found.providers.find(provider.name).plugin, found.kinds.find(plan.source.kind).plugin]
    return {plugin.distribution: plugin.version for plugin in sorted(owners, key=lambda each: each.distribution)}
