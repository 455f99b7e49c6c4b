"""Claiming: finding the plugin that fills a stage of a recipe, and its steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from drupe.api import Claim, DrupeError, ModelError, PlanError, PluginError, unknown
from drupe_planning.asked_of_plugins import asked_for, unanswered

if TYPE_CHECKING:
    from drupe.api import Plugin, Stage
    from drupe_planning.draft import Draft

REQUIRED = ("import", "quantize")
"""Stages that must be filled: a recipe makes no sense without them."""
CHOSEN_BY = {"import": "exporter"}
"""The option with which a user names the claim that fills a stage."""


def claim_for(stage: Stage, draft: Draft) -> tuple[Plugin, Claim] | None:
    """The plugin that fills a stage, and its claim; None for a stage without a claim that may be left out.

    Raises PlanError for a stage that must be filled, and PluginError for two claims of one rank.
    """
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
    if not offers and stage.name in REQUIRED:
        raise _unclaimed(stage, draft)
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


def _refuse_choice(stage: Stage, wanted: str, offers: Iterable[tuple[Plugin, Claim]]) -> list[tuple[Plugin, Claim]]:
    chosen = f"{CHOSEN_BY.get(stage.name, f'claim of the stage {stage.name!r}')} for this model"
    raise unknown(chosen, wanted, [claim.name for _, claim in offers])


def _unclaimed(stage: Stage, draft: Draft) -> PlanError:
    task = f" for the task '{draft.model.task}'" if draft.model.task else ""
    left = unanswered(draft.request.options, draft.found)
    leave = f"leave {' and '.join(left)} out, " if left else ""
    return PlanError(
        f"no installed plugin fills the stage '{stage.name}'{_as_asked(stage, draft)} "
        f"for a model of kind '{draft.model.kind}'{task}"
        + "".join(left.values())
        + draft.found.why_missing(stage.name),
        where=draft.model.location,
        cure=leave
        + "install a plugin that does, or name the passes with --passes; drupe inspect MODEL shows kind and task",
    )


def _as_asked(stage: Stage, draft: Draft) -> str:
    """What a third party's recipe asks of the stage: it may be misspelt, or more than any claimant can do."""
    owner = draft.found.providers.find(draft.provider.name).plugin
    if owner.shipped or draft.recipe is None or not stage.numerics:
        return ""
    asked = ", ".join(f"{key} = {value}" for key, value in stage.numerics.items())
    return f" with {asked}, as the recipe '{draft.recipe.name}' of {owner.title} asks,"
