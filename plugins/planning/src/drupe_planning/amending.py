"""Amending: plugins that the user has asked for may change a composed plan. The plan names the plugins that did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Plan
from drupe_planning.claiming import asked_for, own_options
from drupe_planning.drafting import find_pass

if TYPE_CHECKING:
    from drupe.api import Plugin, Registry
    from drupe_planning.drafting import Draft


def amended_by_plugins(plan: Plan, draft: Draft) -> Plan:
    """The plan after the changes of all plugins that the user has asked for. Each pass names what changed it."""
    found, request = draft.found, draft.request
    for plugin in found.working:
        if plugin.shipped or asked_for(plugin, request, draft.provider, found):
            amended = found.ask(plugin, "drupe_amend_plan", Plan, needed=True, plan=plan, request=request)
            if amended is not None:
                plan = _signed(plan, amended, plugin, found)
                draft.reads |= own_options(plugin, request.options, found)
    return plan


def _signed(before: Plan, after: Plan, plugin: Plugin, found: Registry) -> Plan:
    """The amended plan, with the plugin's name on the plan, and on every pass that the plugin has added or changed."""
    passes = [
        each
        if each in before.passes
        else each.model_copy(
            update={
                "amended_by": (*each.amended_by, plugin.distribution),
                "brought_by": find_pass(each.name, plugin.distribution, found).plugin.title,
            }
        )
        for each in after.passes
    ]
    signed = {"passes": tuple(passes), "amended_by": (*before.amended_by, plugin.distribution)}
    return after if after == before else after.model_copy(update=signed)
