"""Amending: plugins that the user has asked for may change a composed plan. The plan names the plugins that did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Plan, PlanError, PluginError, UsageError, call, follow, make_ready
from drupe_planning.asked_of_plugins import asked_for, own_options
from drupe_planning.draft import reporting

if TYPE_CHECKING:
    from drupe.api import Model, Plugin
    from drupe_planning.draft import Draft


def amended_by_plugins(plan: Plan, draft: Draft, source: Model) -> Plan:
    """The plan after the changes of all plugins that the user has asked for. Each pass names what changed it.

    Raises PluginError, which names the plugin, for a change after which the plan does not work.
    """
    found, request = draft.found, draft.request
    for plugin in found.working:
        if plugin.shipped or asked_for(plugin, request, draft.provider, found):
            amended = found.ask(plugin, "drupe_amend_plan", Plan, needed=True, plan=plan, request=request)
            if amended is not None:
                plan = _signed(plan, _sound(plan, amended, plugin), plugin, draft)
                model = source
                try:
                    for each in plan.passes:
                        model = follow(make_ready(each, found), model, found, plan.chain)
                except (PlanError, UsageError) as error:
                    what = f"{plugin.title} has changed the plan, which does not work any more: {error.what}"
                    raise PluginError(what, where=error.where, cure=reporting(plugin.distribution)) from error
                draft.reads |= own_options(plugin, request.options, found)
    return plan


def _sound(before: Plan, after: Plan, plugin: Plugin) -> Plan:
    """The amended plan, with all its fields checked. pydantic checks nothing in copies of a plan."""
    amended = call(plugin, "drupe_amend_plan()", lambda: Plan.model_validate(after.model_dump(warnings=False)))
    if (amended.source, amended.target) != (before.source, before.target):
        what = f"{plugin.title} has changed the source or the target of the plan, and only its passes can be changed"
        raise PluginError(what, cure=reporting(plugin.distribution))
    return amended


def _signed(before: Plan, after: Plan, plugin: Plugin, draft: Draft) -> Plan:
    """The amended plan, with the plugin's name on the plan, and on every pass that the plugin has added or changed."""
    for each in after.passes:
        if each not in before.passes:
            draft.refuse_misspelt(each.name, each.config, plugin.distribution)
    passes = [
        each
        if each in before.passes
        else each.model_copy(
            update={
                "amended_by": (*each.amended_by, plugin.distribution),
                "brought_by": draft.find_pass(each.name, plugin.distribution).plugin.title,
            }
        )
        for each in after.passes
    ]
    signed = {"passes": tuple(passes), "amended_by": (*before.amended_by, plugin.distribution)}
    return after if after == before else after.model_copy(update=signed)
