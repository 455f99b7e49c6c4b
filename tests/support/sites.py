"""Distributions in a temporary folder, and running the program with them, in this process or in another one."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ACME = Path(__file__).resolve().parents[2] / "kernel" / "tests" / "acme"
KERNEL = ("drupe-kernel>=0.1,<0.2",)
ALWAYS = ("drupe-planning", "drupe-publishing")
"""What a kernel needs beside it to make anything."""
CRASHED = 70
"""The program's exit status for what nobody foresaw."""


@dataclass(frozen=True)
class Done:
    """The result of a run of the program: the fields of subprocess.CompletedProcess that tests read."""

    returncode: int
    stdout: str
    stderr: str


class Site:
    """A folder on the import path with distributions in it, as if pip had installed them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "acme.log"
        self.events = folder / "events.jsonl"
        self.environment: dict[str, str] = {}

    def add(
        self,
        name: str,
        entries: Mapping[str, str],
        files: Mapping[str, str],
        version: str = "1.0",
        requires: tuple[str, ...] = KERNEL,
    ) -> None:
        """Install a distribution. entries: plugin name to module; files: file name to content."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        lines = "\n".join(f"{key} = {value}" for key, value in entries.items())
        (info / "entry_points.txt").write_text(f"[drupe.plugins]\n{lines}\n")
        for file, content in files.items():
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / file).write_text(content)
        # Python takes a module for unchanged whose new text has the size and the second of the old one.
        for compiled in self.folder.rglob("__pycache__"):
            shutil.rmtree(compiled)

    def add_acme(self) -> None:
        """Install acme, the kernel's example of a third party."""
        files = {file.name: file.read_text() for file in ACME.glob("*.py")}
        self.add("acme", {"acme": "acme_plugin"}, files)

    def ship(self, *names: str) -> None:
        """Let only these distributions, and ALWAYS, count as shipped with Drupe. All others are left out."""
        shutil.rmtree(self.folder / "drupe-0.1.0.dist-info", ignore_errors=True)
        self.add("drupe", {}, {}, version="0.1.0", requires=(*KERNEL, *ALWAYS, *names))
        self.environment["DRUPE_PLUGINS"] = ""

    def allow(self, *names: str) -> None:
        """Also use these distributions, besides the shipped ones."""
        self.environment["DRUPE_PLUGINS"] = " ".join(names)

    def command(self, *arguments: object) -> list[str]:
        return [sys.executable, "-m", "drupe", *map(str, arguments)]

    def environ(self) -> dict[str, str]:
        return {**os.environ, **self._own_environment()}

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run `drupe` with these arguments in another process."""
        return subprocess.run(self.command(*arguments), env=self.environ(), capture_output=True, text=True, check=False)

    def python(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these distributions installed."""
        command = [sys.executable, "-c", script]
        return subprocess.run(command, env=self.environ(), capture_output=True, text=True, check=False)

    def run_here(self, *arguments: object) -> Done:
        """Run `drupe` in this process, which is faster. Each run looks for the installed plugins again."""
        with self.installed_here():
            return program_here(*arguments)

    @contextlib.contextmanager
    def installed_here(self) -> Iterator[None]:
        """Install the distributions in this process for the duration of a block."""
        from drupe.registry import registry

        before, path, modules = dict(os.environ), list(sys.path), set(sys.modules)
        os.environ.update(self._own_environment())
        sys.path.insert(0, str(self.folder))
        importlib.invalidate_caches()
        registry.cache_clear()
        try:
            yield
        finally:
            registry.cache_clear()
            sys.path[:] = path
            for name in set(sys.modules) - modules:
                if str(getattr(sys.modules[name], "__file__", "")).startswith(str(self.folder)):
                    del sys.modules[name]
            os.environ.clear()
            os.environ.update(before)

    def _own_environment(self) -> dict[str, str]:
        outside = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        own = {
            "PYTHONPATH": os.pathsep.join([str(self.folder), *filter(None, outside)]),
            "DRUPE_CACHE": str(self.folder / "cache"),
            "XDG_CACHE_HOME": str(self.folder / "xdg"),
            "ACME_LOG": str(self.log),
            "ACME_EVENTS": str(self.events),
            "COLUMNS": "200",
        }
        return {**own, **self.environment}


def program_here(*arguments: object) -> Done:
    """Run `drupe` in this process, with the distributions that are installed in it."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = _program([str(each) for each in arguments])
    return Done(status, out.getvalue(), err.getvalue())


def _program(arguments: list[str]) -> int:
    """Run the program's `main`; returns its exit status."""
    from drupe_commands.program import app

    try:
        app(arguments, prog_name="drupe")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return CRASHED
    return 0
