"""Install commands in messages. Where Drupe was installed from a clone, they take from it what no index has."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from drupe.api import KERNEL, PROJECT

OURS = re.compile(rf"'{PROJECT}(?:-[a-z-]+)?[\[<>=~!][^']*'|(?<=pip install ){PROJECT}(?:-[a-z-]+)?(?![\w\[-])")
"""A requirement of a message that names Drupe or a part of it: 'drupe[search]', or what `pip install` takes first."""


def from_sources(text: str) -> str:
    """A message whose install commands work here: in a clone, Drupe's own distributions are named by their folders."""
    if (clone := _clone()) is None:
        return text
    projects = dict(_projects(clone))
    return OURS.sub(lambda found: _words(found[0].strip("'"), projects) or found[0], text)


def _clone() -> Path | None:
    """The folder of the sources that Drupe was installed from; None where it came from an index or a wheel."""
    origin = json.loads(metadata.distribution(KERNEL).read_text("direct_url.json") or "{}")
    if "dir_info" not in origin:
        return None
    folder = Path(url2pathname(urlsplit(origin["url"]).path)).parent
    return folder if (folder / "pyproject.toml").is_file() and (folder / "plugins").is_dir() else None


def _projects(clone: Path) -> Iterator[tuple[str, tuple[Path, dict[str, Any]]]]:
    """The folder and the description of each distribution of a clone, by name."""
    for file in (clone / "pyproject.toml", *clone.glob("*/pyproject.toml"), *clone.glob("*/*/pyproject.toml")):
        project = tomllib.loads(file.read_text("utf-8")).get("project")
        if project is not None:
            yield project["name"], (file.parent, project)


def _words(requirement: str, projects: dict[str, tuple[Path, dict[str, Any]]]) -> str:
    """What `pip install` takes for a requirement, as typed: folders of the clone, and what other projects bring."""
    return shlex.join(dict.fromkeys(_needed(requirement, projects)))


def _needed(requirement: str, projects: dict[str, tuple[Path, dict[str, Any]]]) -> Iterator[str]:
    """The folders of what is not installed yet, and the requirements on other projects that an extra brings."""
    name, extras = re.match(r"([\w-]+)(?:\[([^]]*)\])?", requirement).groups()  # type: ignore[union-attr]
    if name not in projects:
        yield requirement
        return
    folder, project = projects[name]
    for extra in filter(None, (extras or "").split(",")):
        for each in project.get("optional-dependencies", {}).get(extra, ()):
            yield from _needed(each, projects)
    if not _is_installed(name):
        yield str(folder)
        for each in project.get("dependencies", ()):
            if each.startswith(PROJECT):
                yield from _needed(each, projects)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
