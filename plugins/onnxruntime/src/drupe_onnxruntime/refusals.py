"""Errors that both runtimes raise before they open a model, and their cures."""

from __future__ import annotations

from drupe.api import RuntimeMissing, Target

MAKE_AGAIN = "run the model on the provider that it was made for, or make it again with drupe optimize"
"""The cure for a model that a runtime cannot open."""


def no_device(target: Target) -> str | None:
    """Why a model cannot run on the target; None where this machine has the target's device."""
    return None if target.here else f"this machine has no device for the provider '{target.provider}'"


def only_on_the_processor(target: Target) -> str | None:
    """Why onnxruntime-genai would run on the processor instead of the target; None where it would not.

    It knows a provider by its entry in `provider_options` alone.
    """
    if target.device is None or target.device.kind == "cpu" or target.runtime_options:
        return None
    return (
        f"the provider '{target.provider}' has no runtime_options, and without these onnxruntime-genai runs on the CPU"
    )


def refuse_elsewhere(target: Target) -> None:
    """Raise RuntimeMissing where this machine does not have the target's device."""
    if reason := no_device(target):
        raise RuntimeMissing(reason, cure="run the model on a machine that has such a device")
