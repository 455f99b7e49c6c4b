"""Errors for settings without effect: options that are not declared or read, and keys of passes outside the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import UsageError, unknown

if TYPE_CHECKING:
    from drupe.api import Plan, Recipe, Registry, Request
    from drupe_planning.drafting import Draft


def refuse_unknown_options(request: Request, found: Registry) -> None:
    """Raise UsageError for an option that no plugin declares, and for a value that is not one of its choices."""
    for name, value in request.options.items():
        if name not in found.options:
            error = unknown("option", name, found.options)
            error.what += found.why_missing(name)
            raise error
        try:
            found.options[name].refuse(value)
        except UsageError as error:
            error.what += found.why_missing(name)
            raise


def refuse_unread(draft: Draft, plan: Plan, recipe: Recipe | None) -> None:
    """Raise UsageError for an option that no part of the plan reads, and for a key of a pass outside the plan."""
    request, found = draft.request, draft.found
    for name in request.options:
        option = found.options[name]
        if option.source or name in draft.reads or (request.verify and name in draft.checks):
            continue
        if name in draft.checks:
            why = "with --no-verify"
        elif draft.because:
            why = f"here: {draft.because}"
        elif option.needs and recipe is not None and recipe.quantizes:
            why = f"without {option.needs}"
        elif recipe is None or recipe.quantizes:
            why = f"here: no pass of the plan reads it ({plan.chain})"
        else:
            why = f"with --precision {request.precision} on {draft.provider.name}"
        typed = option.typed(request.options[name])
        raise UsageError(f"{typed} has no effect {why}", cure=f"leave {typed} out")
    for name in request.settings:
        if all(name != each.name for each in plan.passes):
            raise unknown("pass of this plan", name, [each.name for each in plan.passes], where=f"--set {name}.")
    for stage in request.claims:
        if all(stage != getattr(each, "name", None) for each in (recipe.stages if recipe else ())):
            raise UsageError(f"the plan has no stage '{stage}' to choose a claim for", cure="leave the choice out")
