"""FolderCache: keeps what costly passes have made, under keys that cover all that decides it."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import PluginError, installed_version
from drupe_files.cache import cache_folder, key_of
from drupe_files.disk import refuse_unwritable

if TYPE_CHECKING:
    from drupe.api import Model, Pass, PassConfig, Run, Target


class FolderCache:
    """A `drupe.api.PassCache` of folders. One appears whole or not at all, so a killed process leaves no half of it."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: None for the user's own cache."""
        self.folder = folder or cache_folder() / "passes"

    def prepare(self) -> None:
        """Make the cache's folder. Raises OutputError, before any work, where nothing can be kept there."""
        folder = self.folder.absolute()
        refuse_unwritable(folder / "kept", "name another folder for the cache: DRUPE_CACHE=<folder>")
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, run: Run, at: int) -> Model | None:
        """What the passes up to `at` have made before, unless what it refers to has moved or changed since."""
        from drupe.api import ModelError, kept_model

        folder = self.folder / _key(run, at)
        try:
            return kept_model(folder, run.found) if folder.is_dir() else None
        except ModelError:
            shutil.rmtree(folder, ignore_errors=True)
            return None

    def keep(self, run: Run, at: int, model: Model) -> Model:
        """Keep what the passes up to `at` have made; gives the model as it lies in the cache."""
        from drupe.api import keep_model, kept_model

        self.prepare()
        key = _key(run, at)
        making = self.folder / f".{key[:16]}-{uuid.uuid4().hex}"
        making.mkdir()
        try:
            keep_model(model, making, run.context)
            try:
                making.rename(self.folder / key)
            except OSError:
                if not (self.folder / key).is_dir():  # not merely made by another process in the meantime
                    raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return kept_model(self.folder / key, run.found)


def _key(run: Run, at: int) -> str:
    """All that decides what the passes up to `at` make: source, passes, configurations, versions, target."""
    steps = [
        {
            "pass": step.planned.name,
            "parts": step.planned.parts,
            "brought_by": step.plugin.title,
            **identity_of(step.runner, step.config, run.context.target),
        }
        for step in run.passes[: at + 1]
    ]
    fingerprint = run.found.kinds.make(run.job.source.kind).fingerprint(run.job.source)
    return key_of({"source": fingerprint, "steps": steps})


def identity_of(runner: Pass, config: PassConfig, target: Target) -> dict[str, Any]:
    """All that decides what a pass makes of a model, beside the model itself.

    Raises PluginError for a pass that names a library which is not installed.
    """
    return {
        "revision": runner.revision,
        "config_version": config.version,
        "config": {key: _identity(value) for key, value in config.model_dump().items()},
        "libraries": {name: _version(name, runner) for name in runner.libraries},
        "target": (target.provider, target.runtime_version, target.here),
    }


def _version(library: str, runner: Pass) -> str:
    if (version := installed_version([library])) is None:
        what = f"the pass '{runner.name}' names the library {library}, which is not installed"
        raise PluginError(what, where=type(runner).__module__, cure=f"pip install {library}")
    return version


def _identity(value: Any) -> Any:
    """A configured value as the key sees it: a file by its content."""
    if not isinstance(value, Path) or not value.is_file():
        return value
    with value.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
