"""What runs on the machines of a cluster: one task."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe_executor_ray.storage import SharedCache, Storage, placed
from drupe_files import FolderCache


def carry_out(function: str, task: Mapping[str, Any], folder: str, storage: str) -> Mapping[str, Any]:
    """What a function makes of a task. folder: the driver's working folder, to which paths are relative."""
    if Path(folder).is_dir():
        os.chdir(folder)
    module, _, name = function.partition(":")
    called = getattr(importlib.import_module(module), name)
    if not storage:
        return dict(called(task))
    shared = Storage(storage)
    with FolderCache() as own, placed(task, shared) as own_task:
        return dict(called(own_task, cache=SharedCache(own, shared)))
