"""Whether the libraries of other tools are installed, and loading them."""

from __future__ import annotations

import importlib
from typing import Any

from drupe.api import RuntimeMissing, Target, installed_version


def refuse_missing(distributions: tuple[str, ...], install: str) -> None:
    """Raise RuntimeMissing, with the command that installs, where one of some distributions is not installed."""
    for name in distributions:
        if installed_version((name,)) is None:
            raise RuntimeMissing(f"{name} is not installed", cure=install)


def load(module: str, distribution: str, install: str) -> Any:
    """A module. Raises RuntimeMissing where it is not there, or does not load."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeMissing(f"{distribution} cannot be loaded: {error}", cure=install) from error


def refuse_elsewhere(name: str, target: Target) -> None:
    """Raise RuntimeMissing for a target that is not the processor."""
    if target.device is not None and target.device.kind != "cpu":
        raise RuntimeMissing(f"{name} is measured on the processor only", cure="--provider cpu")
