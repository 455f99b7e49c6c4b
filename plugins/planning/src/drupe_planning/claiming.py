"""Claiming: finding the plugin that fills a stage of a recipe, and its steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from drupe.api import Claim, DrupeError, ModelError, PlanError, PluginError, several, unknown

if TYPE_CHECKING:
    from drupe.api import ExecutionProvider, Plugin, Registry, Request, Stage
    from drupe_planning.drafting import Draft

REQUIRED = ("import", "quantize")
"""Stages that must be filled: a recipe makes no sense without them."""


def claim_for(stage: Stage, draft: Draft) -> tuple[Plugin, Claim] | None:
    """The plugin that fills a stage, and its claim; None without a claim. Raises PluginError for two of one rank."""
    wanted = draft.request.claims.get(stage.name)
    complaints: list[DrupeError] = []
    offers = _offers(stage, draft, True, complaints)
    if wanted is not None:
        offers += _offers(stage, draft, False, complaints)
        offers = [offer for offer in offers if offer[1].name == wanted] or _refuse_choice(stage, wanted, offers)
    elif not offers and stage.name in REQUIRED:
        offers = _offers(stage, draft, False, complaints)
    if not offers and complaints:
        raise complaints[0]
    if not offers:
        return None
    best = [offer for offer in offers if offer[1].rank == max(claim.rank for _, claim in offers)]
    if len(best) > 1:
        owners = " and ".join(f"{plugin.distribution} ('{claim.name}')" for plugin, claim in best)
        raise PluginError(f"the stage '{stage.name}' is claimed by {owners}", cure="pip uninstall one of them")
    return best[0]


def _offers(stage: Stage, draft: Draft, counting: bool, complaints: list[DrupeError]) -> list[tuple[Plugin, Claim]]:
    """The claims of plugins for a stage: of those that count, or of the others. complaints: collects their errors."""
    offers: list[tuple[Plugin, Claim]] = []
    arguments = {"stage": stage, "model": draft.model, "target": draft.target, "request": draft.request}
    for plugin in draft.found.working:
        if _counts(plugin, draft) is not counting:
            continue
        try:
            claim = draft.found.ask(plugin, "drupe_claim", Claim, needed=counting, **arguments)
        except DrupeError as error:
            if counting and not isinstance(error, ModelError):
                raise
            complaints.append(error)
        else:
            offers += [] if claim is None else [(plugin, claim)]
    return offers


def _counts(plugin: Plugin, draft: Draft) -> bool:
    """Whether a plugin's claim is considered beside others: it ships with Drupe, or the user has asked for it.

    A model whose kind only the plugin knows counts as asking for the plugin.
    """
    found = draft.found
    own_kind = found.kinds.find(draft.model.kind).plugin is plugin
    return plugin.shipped or own_kind or asked_for(plugin, draft.request, draft.provider, found)


def asked_for(plugin: Plugin, request: Request, provider: ExecutionProvider, found: Registry) -> bool:
    """Whether the user has asked for a plugin, by one of its options or by its provider."""
    own_provider = found.providers.find(provider.name).plugin is plugin
    return own_provider or bool(own_options(plugin, request.options, found))


def _refuse_choice(stage: Stage, wanted: str, offers: Iterable[tuple[Plugin, Claim]]) -> list[tuple[Plugin, Claim]]:
    raise unknown(f"claim of the stage '{stage.name}'", wanted, [claim.name for _, claim in offers])


def unclaimed(stage: Stage, draft: Draft) -> PlanError:
    task = f" for the task '{draft.model.task}'" if draft.model.task else ""
    return PlanError(
        f"no installed plugin fills the stage '{stage.name}' for a model of kind '{draft.model.kind}'{task}"
        + draft.found.why_missing(stage.name),
        where=draft.model.location,
        cure="install a plugin that does, or name the passes with --passes; drupe inspect MODEL shows kind and task",
    )


def own_options(plugin: Plugin, options: Mapping[str, Any], found: Registry) -> set[str]:
    """The user's options that belong to the plugin, or whose value is a choice that the plugin has added."""
    return {
        name
        for name, value in options.items()
        for option, owner in found.owners.get(name, ())
        if owner is plugin and (not option.extends or {*several(value)} & {*option.choices})
    }
