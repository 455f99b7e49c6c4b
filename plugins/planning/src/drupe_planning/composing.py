"""Composing: from a request and a resolved source to a plan: its passes, its check, and what it was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Plan, PlannedCheck, PlannedSource, PlannedTarget, call
from drupe_planning.amending import amended_by_plugins
from drupe_planning.drafting import drafted
from drupe_planning.undeclared_options import refuse_undeclared
from drupe_planning.unread_settings import refuse_unread_settings

if TYPE_CHECKING:
    from drupe.api import ExecutionProvider, Model, Registry, Request, Target
    from drupe_planning.draft import Draft


def compose(request: Request, source: Model, provider: ExecutionProvider, target: Target, found: Registry) -> Plan:
    """The plan for a request: the provider's recipe with its stages filled, or the passes that the user named.

    Raises DrupeError, before anything runs, for passes that do not fit together, options without effect, and a
    source that the first pass cannot do.
    """
    refuse_undeclared(request, found)
    draft = drafted(request, source, provider, target, found)
    plan = amended_by_plugins(_plan(draft, source), draft, source)
    refuse_unread_settings(draft, plan)
    for first in plan.passes[:1]:  # which takes the source as it is
        owner = found.passes.find(first.name)
        call(owner.plugin, f"refuse() of {owner.title}", owner.make().refuse, source)
    return plan.model_copy(update={"plugins": _versions(plan, provider, found)})


def _plan(draft: Draft, source: Model) -> Plan:
    """The plan with the passes of a draft."""
    request = draft.request
    return Plan(
        source=PlannedSource(
            reference=_absolute(request.reference),
            options=_recorded(request, draft.found, source_only=True),
            **source.note(),
        ),
        target=PlannedTarget(
            provider=draft.provider.name, precision=request.precision, runtime_version=draft.target.runtime_version
        ),
        passes=tuple(draft.passes),
        check=_planned_check(draft, source),
        recipe=draft.recipe.name if draft.recipe else "",
        options=_recorded(request, draft.found, source_only=False),
        threads=request.threads,
    )


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
    return {
        name: _absolute_paths(value) if found.options[name].type is Path else value for name, value in chosen.items()
    }


def _absolute_paths(value: Any) -> Any:
    """The paths of an option as text, so the plan means the same in another folder.

    What lies in a folder that is not there may be a hub id, and stays as it is.
    """
    if isinstance(value, list | tuple):
        return [_absolute_paths(each) for each in value]
    path = Path(value).expanduser().absolute()
    return str(path if path.parent.is_dir() else value)


def _absolute(reference: str) -> str:
    """An absolute path, so the plan means the same in another folder; a hub id is unchanged."""
    path = Path(reference).expanduser()
    return str(path.absolute()) if path.exists() else reference


def _versions(plan: Plan, provider: ExecutionProvider, found: Registry) -> dict[str, str]:
    """The distributions that the plan uses, with their versions."""
    owners = [found.passes.find(each.name).plugin for each in plan.passes]
    owners += [found.providers.find(provider.name).plugin, found.kinds.find(plan.source.kind).plugin]
    return {plugin.distribution: plugin.version for plugin in sorted(owners, key=lambda each: each.distribution)}
