"""Installed distributions made in a temporary folder, and the program run with them in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ACME = Path(__file__).parent / "acme"


class Site:
    """A folder on the import path that holds distributions, as pip would have installed them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "acme.log"
        self.environment: dict[str, str] = {}

    def add(
        self, name: str, entries: Mapping[str, str], files: Mapping[str, str], version: str = "1.0",
        requires: tuple[str, ...] = ("drupe-kernel",),
    ) -> None:  # fmt: skip
        """Install a distribution. entries: plugin name to module; files: file name to content."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        lines = "\n".join(f"{key} = {value}" for key, value in entries.items())
        (info / "entry_points.txt").write_text(f"[drupe.plugins]\n{lines}\n")
        for file, content in files.items():
            (self.folder / file).write_text(content)

    def add_acme(self) -> None:
        files = {file.name: file.read_text() for file in ACME.glob("*.py")}
        self.add("acme", {"acme": "acme_plugin"}, files)

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "drupe", *map(str, arguments)]

    def environ(self) -> dict[str, str]:
        own = {
            "PYTHONPATH": str(self.folder),
            "DRUPE_CACHE": str(self.folder / "cache"),
            "XDG_CACHE_HOME": str(self.folder / "xdg"),
            "ACME_LOG": str(self.log),
            "COLUMNS": "200",
        }
        return {**os.environ, **own, **self.environment}

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run `drupe` with these arguments."""
        return subprocess.run(self.command(*arguments), env=self.environ(), capture_output=True, text=True, check=False)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)


@pytest.fixture
def acme(site: Site) -> Site:
    """A site with the third party's plugin installed."""
    site.add_acme()
    return site


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "model.txt").write_text("hello")
    return folder
