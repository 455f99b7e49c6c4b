"""Errors that both runtimes raise before they open a model, and their cures."""

from __future__ import annotations

from drupe.api import RuntimeMissing, Target

MAKE_AGAIN = "run the model on the provider that it was made for, or make it again with drupe optimize"
"""The cure for a model that a runtime cannot open."""


def no_device(target: Target) -> str | None:
    """Why a model cannot run on the target; None where this machine has the target's device."""
    return None if target.here else f"this machine has no device for the provider '{target.provider}'"


def refuse_elsewhere(target: Target) -> None:
    """Raise RuntimeMissing where this machine does not have the target's device."""
    if reason := no_device(target):
        raise RuntimeMissing(reason, cure="run the model on a machine that has such a device")
