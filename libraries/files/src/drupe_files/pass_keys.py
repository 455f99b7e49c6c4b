"""The keys of the cache: all that decides what passes make, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import PluginError, installed_version
from drupe_files.cache import key_of
from drupe_files.digests import content_digest
from drupe_files.entry_notes import FORMAT

if TYPE_CHECKING:
    from drupe.api import Pass, PassConfig, Run, Target

STANDS_FOR = "stands_for"
"""In the `json_schema_extra` of a key of a configuration: the key that names what this one is a digest of.

The other key is left out of the cache's keys: where a file lies does not decide on a result.
"""


def key_at(run: Run, at: int) -> str:
    """All that decides what the passes up to `at` make: source, passes, configurations, versions, target."""
    found, source = run.found, run.job.source
    kind = found.kinds.find(source.kind)
    steps = [
        {
            "pass": step.planned.name,
            "parts": sorted(step.planned.parts),
            "brought_by": step.plugin.title,
            **identity_of(step.runner, step.config, run.context.target),
        }
        for step in run.passes[: at + 1]
    ]
    of_source = {
        "fingerprint": kind.make().fingerprint(source),
        "kind": source.kind,
        "brought_by": kind.plugin.title,
        "task": source.task,
        "parts": {role: dict(facts) for role, facts in source.parts.items()},
    }
    provider = found.providers.find(run.context.target.provider).plugin.title
    return key_of({"format": FORMAT, "source": of_source, "provider": provider, "steps": steps})


def identity_of(runner: Pass, config: PassConfig, target: Target) -> dict[str, Any]:
    """All that decides what a pass makes of a model, beside the model itself.

    Raises PluginError for a pass that names a library which is not installed.
    """
    return {
        "revision": runner.revision,
        "config_version": config.version,
        "config": _identity_of_config(config),
        "libraries": {name: _version(name, runner) for name in runner.libraries},
        "target": (target.provider, target.runtime_version, target.here),
    }


def _version(library: str, runner: Pass) -> str:
    if (version := installed_version([library])) is None:
        what = f"the pass '{runner.name}' names the library {library}, which is not installed"
        raise PluginError(what, where=type(runner).__module__, cure=f"pip install {library}")
    return version


def _identity_of_config(config: PassConfig) -> dict[str, Any]:
    digested = {
        extra[STANDS_FOR]
        for field in type(config).model_computed_fields.values()
        if isinstance(extra := field.json_schema_extra, Mapping) and STANDS_FOR in extra
    }
    return {key: _identity(value) for key, value in config.model_dump().items() if key not in digested}


def _identity(value: Any) -> Any:
    """A configured value as the key sees it: a file or folder by its content, what has no order in one order."""
    if isinstance(value, Mapping):
        pairs = [[_identity(key), _identity(held)] for key, held in value.items()]
        return {"mapping": sorted(pairs, key=json.dumps)}
    if isinstance(value, Set):
        return {"set": sorted(map(_identity, value), key=json.dumps)}
    if isinstance(value, list | tuple):
        return [_identity(each) for each in value]
    if isinstance(value, Path):
        return _identity_of_path(value)
    if isinstance(value, Enum):
        return _identity(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {type(value).__qualname__: str(value)}


def _identity_of_path(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return {"folder": {each.relative_to(path).as_posix(): content_digest(each) for each in _files(path)}}
    return {"file": content_digest(path)} if path.is_file() else {"path": str(path)}


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]
