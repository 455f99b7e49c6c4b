"""What a plugin imports. Each name is loaded when it is first used, so that a plugin's entry module stays light.

`api.pyi` beside this file lists the names.
"""

import importlib
import re
from pathlib import Path

_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_MODULES = {name: module for module, name in re.findall(r"^from \.(\S+) import (\w+)", _STUB, re.MULTILINE)}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'drupe.api' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"drupe.{_MODULES[name]}"), name)
    globals()[name] = value  # where it is found the next time
    return value


def __dir__() -> list[str]:
    return __all__
