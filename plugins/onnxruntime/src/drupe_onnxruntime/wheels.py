"""Which wheels of onnxruntime and onnxruntime-genai are installed, and loading one."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from importlib import metadata
from types import ModuleType

from drupe.api import RuntimeMissing

GENAI = ("onnxruntime-genai", "onnxruntime-genai-cuda", "onnxruntime-genai-directml")
ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml")
"""Families: distributions with one import name, the plain one first."""
FATAL = 4
"""onnxruntime's severity from which on it writes to stderr; what is less severe comes as an exception as well."""
INSTALL = "pip install 'drupe[cpu]' (or 'drupe[cuda]', 'drupe[directml]')"


def absence(wanted: Sequence[str], *beside: Sequence[str]) -> tuple[str, str] | None:
    """Why no distribution of a family can be used here, and the cure; found without importing it.

    beside: other families that it loads. Of each, the last one installed wins, and removing one breaks the rest.
    """
    if not _installed(wanted):
        return f"{wanted[0]} is not installed", INSTALL
    for family in (wanted, *beside):
        if len(present := _installed(family)) > 1:
            listed = " and ".join(f"{name} {version}" for name, version in present.items())
            return (
                f"{listed} are installed together and overwrite each other's files",
                f"pip uninstall -y {' '.join(present)}, then {INSTALL}",
            )
    return None


def load(family: Sequence[str]) -> ModuleType:
    """The module of a family. Raises RuntimeMissing where none is installed, or it does not load.

    It sends usage data unless told not to before it starts, and nothing in Drupe sends anything.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module(family[0].replace("-", "_"))
    except ModuleNotFoundError as error:
        raise RuntimeMissing(f"{family[0]} is not installed", cure=INSTALL) from error
    except ImportError as error:
        raise RuntimeMissing(f"{family[0]} does not load: {error}", cure=INSTALL) from error


def _installed(family: Sequence[str]) -> dict[str, str]:
    """The distributions of a family that are installed, with their versions."""
    found = {}
    for name in family:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
