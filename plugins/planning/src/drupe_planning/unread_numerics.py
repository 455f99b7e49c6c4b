"""The error for numerics of a third party's recipe that nothing reads: misspelt ones would be left out in silence."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from drupe.api import DrupeError, PluginError, unknown
from drupe_planning.draft import reporting

if TYPE_CHECKING:
    from drupe.api import Claim, Plugin, Stage
    from drupe_planning.draft import Draft


def refuse_unread_numerics(stage: Stage, claimed: tuple[Plugin, Claim] | None, draft: Draft) -> None:
    """Raise PluginError for a key of the stage's numerics that no pass has.

    A key that a pass of the plan does not read may be one for another kind of model, so it counts if any installed pass
    has it. A third party's claim may read keys of its own.
    """
    owner = draft.found.providers.find(draft.provider.name).plugin
    if owner.shipped or (claimed and not claimed[0].shipped):
        return
    read = {key for step in (claimed[1].steps if claimed else ()) for key in step.config}
    if unread := [key for key in stage.numerics if key not in read]:
        known = _keys_of_passes(draft)
        for key in unread:
            if key not in known:
                what = f"{owner.distribution} asks the stage '{stage.name}' for {key} = {stage.numerics[key]!r}"
                close = unknown("key of the passes", key, known).what.partition("; ")[2]
                raise PluginError(f"{what}, which no pass reads; {close}", cure=reporting(owner.distribution))


def _keys_of_passes(draft: Draft) -> set[str]:
    """The keys of all installed passes that can be imported."""
    known: set[str] = set()
    for entry in draft.found.passes:
        with contextlib.suppress(DrupeError):  # a pass that is broken, and that this plan does not need
            known.update(entry.resolve().Config.model_fields)
    return known
