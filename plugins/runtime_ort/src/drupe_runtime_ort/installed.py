"""Which onnxruntime is installed, and loading it."""

from __future__ import annotations

import os
from importlib import metadata
from types import ModuleType

from drupe.api import RuntimeMissing

ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml")
INSTALL = "pip install 'drupe[cpu]' (or 'drupe[cuda]', 'drupe[directml]')"


def clash() -> tuple[str, str] | None:
    """What is wrong, and the cure, where distributions are installed that overwrite each other's files.

    The wheels share an import name: the last one installed wins, and removing one of them breaks the rest.
    """
    present = {name: version for name in ONNXRUNTIME if (version := _version(name)) is not None}
    if len(present) < 2:
        return None
    listed = " and ".join(f"{name} {version}" for name, version in present.items())
    return (
        f"{listed} are installed together and overwrite each other's files",
        f"pip uninstall -y {' '.join(present)}, then {INSTALL}",
    )


def load() -> ModuleType:
    """The module onnxruntime. Raises RuntimeMissing where it is not installed or does not load.

    It sends usage data unless told not to before it starts, and nothing in Drupe sends anything.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise RuntimeMissing("onnxruntime is not installed", cure=INSTALL) from error
    except ImportError as error:
        raise RuntimeMissing(f"onnxruntime does not load: {error}", cure=INSTALL) from error
    module: ModuleType = onnxruntime
    return module


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
