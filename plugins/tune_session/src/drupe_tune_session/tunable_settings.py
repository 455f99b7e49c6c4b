"""The settings that can be tuned: those of every session, and what the provider of a target declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import ExecutionProvider, replace, unknown
from drupe_onnx.session_options import COMMON, SessionSetting, Tunable

if TYPE_CHECKING:
    from drupe_tune_session.tune_session import TuneSessionConfig


def known_settings(provider: ExecutionProvider) -> dict[str, SessionSetting]:
    """All settings by name; a provider may declare a common one in another way."""
    return {each.name: each for each in (*COMMON, *_declared(provider))}


def settings_to_try(provider: ExecutionProvider, config: TuneSessionConfig) -> list[SessionSetting]:
    """The settings with the values to try, in the provider's order.

    Raises UsageError for a name that is no setting, and a value that it does not have.
    """
    known, wanted = known_settings(provider), dict(config.values or {})
    for name in (*wanted, *(config.keep or ())):
        if name not in known:
            raise unknown(f"session setting of the provider '{provider.name}'", name, known)
    order = dict.fromkeys([*(each.name for each in _declared(provider)), *wanted])
    left = [name for name in order if name not in {*(config.keep or ()), *config.fixed}]
    asked = [
        replace(known[name], values=[known[name].valid(each) for each in wanted.get(name, known[name].values)])
        for name in left
    ]
    return [each for each in asked if each.values]


def _declared(provider: ExecutionProvider) -> list[SessionSetting]:
    return list(provider.session_settings()) if isinstance(provider, Tunable) else []
