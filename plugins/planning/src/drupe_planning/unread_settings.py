"""Errors for settings without effect: options that no part of the plan reads, and keys of passes outside the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import UsageError, flag, unknown
from drupe_planning.asked_of_plugins import unanswered
from drupe_planning.claiming import CHOSEN_BY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drupe.api import Plan
    from drupe_planning.draft import Draft


def refuse_unread_settings(draft: Draft, plan: Plan) -> None:
    """Raise UsageError for an option that no part of the plan reads, and for a key of a pass outside the plan."""
    request, recipe = draft.request, draft.recipe
    for name in request.options:
        option = draft.found.options[name]
        if option.source or name in draft.reads or (request.verify and name in draft.checks):
            continue
        if name in draft.checks:
            why = "with --no-verify"
        elif draft.because:
            why = f"here: {draft.because}"
        elif option.needs and recipe is not None and recipe.quantizes:
            why = f"without {option.needs}"
        elif recipe is None or recipe.quantizes:
            whose = "".join(unanswered({name: request.options[name]}, draft.found).values())
            why = f"here: no pass of the plan reads it ({plan.chain}){whose}"
        else:
            why = f"with --precision {request.precision} on {draft.provider.name}"
        typed = option.typed(request.options[name])
        raise UsageError(f"{typed} has no effect {why}", cure=f"leave {typed} out")
    for name, keys in request.settings.items():
        _refuse_unread_keys(name, keys, draft, plan)
    for stage, wanted in request.claims.items():
        if all(stage != getattr(each, "name", None) for each in (recipe.stages if recipe else ())):
            typed = f"{flag(CHOSEN_BY.get(stage, stage))} {wanted}"
            raise UsageError(f"{typed} has no effect here: the plan has no stage '{stage}'", cure=f"leave {typed} out")


def _refuse_unread_keys(name: str, keys: Iterable[str], draft: Draft, plan: Plan) -> None:
    """Raise UsageError for keys of what is neither a pass of the plan nor the evaluator of its check."""
    used = [*(each.name for each in plan.passes), *filter(None, [plan.check.evaluator])]
    if name in used:
        return
    typed = f"--set {'.'.join([name, *list(keys)[:1]])}"
    if name in draft.found.evaluators:
        why = "with --no-verify" if not draft.request.verify else "here: that evaluator does not measure the package"
        raise UsageError(f"{typed} has no effect {why}", cure=f"leave {typed} out")
    raise unknown("pass or evaluator of this plan", name, used, where=typed)
