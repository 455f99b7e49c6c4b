"""Finding the installed wheels of onnxruntime and onnxruntime-genai, and loading one."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Sequence
from importlib import metadata
from types import ModuleType
from typing import Any

from drupe.api import RuntimeMissing, Target

GENAI = ("onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime-genai-directml")
ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml")
"""Families: distributions that share an import name, the CPU wheel first."""
FATAL = 4
"""The severity from which on onnxruntime writes to stderr. Less severe errors also come as exceptions."""
INSTALL = "pip install 'drupe[cpu]' (or 'drupe[cuda]', 'drupe[directml]')"
"""The cure where the target's provider names no command."""


def absence(wanted: Sequence[str], *beside: Sequence[str], install: str = "") -> tuple[str, str] | None:
    """Why no distribution of a family can be used, and the cure. Nothing is imported to find this.

    beside: other families that the family loads. In each, the last distribution installed overwrites the others, and
    removing one breaks the rest. install: the command that the target's provider names, or "".
    """
    install = install or INSTALL
    if not _installed(wanted):
        return f"{wanted[0]} is not installed", install
    for family in (wanted, *beside):
        if len(present := _installed(family)) > 1:
            listed = " and ".join(f"{name} {version}" for name, version in present.items())
            return (
                f"{listed} are installed together and overwrite each other's files",
                f"pip uninstall -y {' '.join(present)}, then {install}",
            )
    return None


def refuse_absence(wanted: Sequence[str], *beside: Sequence[str], install: str = "") -> None:
    """Raise RuntimeMissing where no distribution of a family can be used. The arguments are those of `absence`."""
    if problem := absence(wanted, *beside, install=install):
        raise RuntimeMissing(problem[0], cure=problem[1])


def load(family: Sequence[str], install: str = "") -> ModuleType:
    """The module of a family. Raises RuntimeMissing where none is installed, or where it does not load.

    onnxruntime would send usage data. Drupe sends nothing, so this turns it off before onnxruntime is loaded.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    cure = install or INSTALL
    try:
        return importlib.import_module(family[0].replace("-", "_"))
    except ModuleNotFoundError as error:
        raise RuntimeMissing(f"{family[0]} is not installed", cure=cure) from error
    except ImportError as error:
        raise RuntimeMissing(f"{family[0]} is installed, but cannot be loaded: {error}", cure=cure) from error


def _installed(family: Sequence[str]) -> dict[str, str]:
    """The installed distributions of a family, with versions; if there are none, a vendor's own with its module."""
    found = {}
    for name in family:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    others = _bringing(family[0].replace("-", "_")) if not found else ()
    return found or {name: metadata.version(name) for name in others if name not in family}


@functools.cache
def _bringing(module: str) -> tuple[str, ...]:
    """The distributions that contain a module, whatever their names. All installed distributions are searched."""
    if importlib.util.find_spec(module) is None:
        return ()
    return tuple(metadata.packages_distributions().get(module, ()))


def version_of(family: Sequence[str]) -> str | None:
    """The version of the installed distribution of a family; None where none is installed."""
    return next(iter(_installed(family).values()), None)


def refuse_missing_provider(module: Any, target: Target) -> None:
    """Raise RuntimeMissing where the installed onnxruntime lacks the target's provider."""
    available = module.get_available_providers()
    if target.runtime_name not in available:
        raise RuntimeMissing(
            f"the installed onnxruntime ({module.__version__}) has no {target.runtime_name}; it has "
            + ", ".join(available),
            cure=target.install or INSTALL,
        )
