"""Amending: plugins that the user has asked for may change a composed plan. The plan names the plugins that did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Plan
from drupe_planning.asked_of_plugins import asked_for, own_options

if TYPE_CHECKING:
    from drupe.api import Plugin
    from drupe_planning.draft import Draft


def amended_by_plugins(plan: Plan, draft: Draft) -> Plan:
    """The plan after the changes of all plugins that the user has asked for. Each pass names what changed it."""
    found, request = draft.found, draft.request
    for plugin in found.working:
        if plugin.shipped or asked_for(plugin, request, draft.provider, found):
            amended = found.ask(plugin, "drupe_amend_plan", Plan, needed=True, plan=plan, request=request)
            if amended is not None:
                plan = _signed(plan, amended, plugin, draft)
                draft.reads |= own_options(plugin, request.options, found)
    return plan


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
