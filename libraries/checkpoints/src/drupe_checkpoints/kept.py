"""Keeping a checkpoint in a cache: the adapters beside it are copied, and files that stay where they are, are not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from drupe.api import Model, ModelError
from drupe_checkpoints.adapters.switched import SwitchedAdapter, as_switched_fact, switched_of
from drupe_files import file_stamp

BESIDE = "adapters"
"""The folder of the adapters beside a checkpoint that is saved; each has one of its own, by its name."""
ELSEWHERE = "checkpoint.json"
"""The file that says where the checkpoint lies, and what its files were."""


def write_elsewhere(location: Path, files: Iterable[Path], folder: Path) -> None:
    """Note a checkpoint that stays where it is: its files by size and time of change."""
    stamps = [file_stamp(path) for path in files]
    content = {"location": str(location.absolute()), "files": stamps}
    (folder / ELSEWHERE).write_text(json.dumps(content), encoding="utf-8")


def kept_location(folder: Path, moved: tuple[Path, Path] | None) -> Path:
    """Where a checkpoint lies that was kept in `folder`. Raises ModelError where one of its files has changed.

    moved: the folder that the source lay in, and where the same files are known to lie now.
    """
    try:
        held = json.loads((folder / ELSEWHERE).read_bytes())
    except FileNotFoundError:
        return folder
    for path, size, changed in held["files"]:
        here = _now_at(Path(path), moved)
        _, size_now, changed_now = file_stamp(here)
        if size_now != size or (here == Path(path) and moved is None and changed_now != changed):
            raise ModelError(f"'{here.name}' has changed since this model was made from it", where=here)
    return _now_at(Path(held["location"]), moved)


def _now_at(path: Path, moved: tuple[Path, Path] | None) -> Path:
    """Where a file or folder lies now."""
    return path if moved is None or not path.is_relative_to(moved[0]) else moved[1] / path.relative_to(moved[0])


def with_adapters_in(model: Model, folder: Path) -> Model:
    """The model with the adapters beside it that were copied into `folder`."""
    beside = switched_of(model)
    here = (SwitchedAdapter(each.name, folder / BESIDE / each.name) for each in beside)
    return model.but(facts=as_switched_fact(here)) if beside else model
