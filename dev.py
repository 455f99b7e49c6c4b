#!/usr/bin/env python3
"""Work on a checkout: `python3 dev.py demo|test|lint|bench` sets up what each needs in .venv, then runs it.

Standard library only. Nothing is installed again until a pyproject.toml, constraints.txt or this file changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "dev-stamp.json"
CONSTRAINTS = ROOT / "constraints.txt"
WINDOWS = os.name == "nt"
PROGRAMS = VENV / ("Scripts" if WINDOWS else "bin")
PYTHON = PROGRAMS / ("python.exe" if WINDOWS else "python")
OLDEST = (3, 11)
GRACE = 10.0  # seconds for what was started to clean up behind itself
RUNTIMES = "cpu"  # the extra of the root distribution that brings what runs a model here

USAGE = """usage: python3 dev.py demo|test|lint|bench [arguments]

  demo              optimize the embedded model and show what was gained
  test [ARGS]       run the tests; ARGS go to pytest (-k NAME, a path, ...)
  lint              ruff check, ruff format --check, mypy
  bench NAME [ARGS] run bench/NAME.py (convert, decode, ...)
"""


def main(arguments: list[str]) -> int:
    """Set up what the command needs, run it, and return its exit status."""
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        return refuse(f"Drupe needs Python {OLDEST[0]}.{OLDEST[1]} or later; this is {found}.")
    commands = {"demo": demo, "test": test, "lint": lint, "bench": bench}
    if not arguments or arguments[0] not in commands:
        sys.stderr.write(USAGE)
        return 2
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what it started ends with it
    try:
        return commands[arguments[0]](arguments[1:])
    except KeyboardInterrupt:
        return 130


def demo(arguments: list[str]) -> int:
    """What a new user runs first."""
    return set_up("demo") or run(PROGRAMS / ("drupe.exe" if WINDOWS else "drupe"), "demo", *arguments)


def test(arguments: list[str]) -> int:
    """All tests in one run; pytest knows from pyproject.toml where they are."""
    # Tests interrupt what they start; where SIGINT is ignored, as in a background job, that would be ignored as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return set_up("test") or run(PYTHON, "-m", "pytest", *arguments, folder=ROOT)


def lint(arguments: list[str]) -> int:
    """Every checker runs, so that one round shows all there is to mend."""
    if arguments:
        return refuse("lint takes no arguments.")
    failed = set_up("lint")
    if failed:
        return failed
    checks = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))
    return max(run(PYTHON, "-m", *check, folder=ROOT) for check in checks)


def bench(arguments: list[str]) -> int:
    """Measurements against other tools; each file in bench/ with a main is one."""
    names = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if "__main__" in path.read_text("utf-8"))
    if not arguments or arguments[0] not in names:
        return refuse(f"usage: python3 dev.py bench {'|'.join(names)} [arguments]")
    return set_up("bench") or run(PYTHON, ROOT / "bench" / f"{arguments[0]}.py", *arguments[1:])


def set_up(purpose: str) -> int:
    """Make .venv hold what `purpose` needs, the checkout's own packages included; 0 when it does."""
    needs = group(purpose)
    done = read_stamp()
    if PYTHON.exists() and done.get("files") == fingerprint() and set(needs) <= set(done["tools"]):
        return 0
    start = time.monotonic()
    failed = make_venv()
    if failed:
        return failed
    files, done = fingerprint(), read_stamp()
    STAMP.unlink(missing_ok=True)  # a killed installation must not look finished
    say(f"installing what '{purpose}' needs into {VENV.name} ...")
    failed = pip(*build_backends()) or pip("--no-build-isolation", *local_packages(), *needs)
    if failed:
        return failed
    kept = done["tools"] if done.get("files") == files else []
    write_stamp({"files": files, "tools": sorted({*kept, *needs})})
    say(f"installed in {time.monotonic() - start:.0f} s")
    return 0


def read_stamp() -> dict[str, Any]:
    """What the last whole installation held: a fingerprint of the files it came from, and the tools beside them."""
    try:
        stamp: dict[str, Any] = json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp


def write_stamp(stamp: dict[str, Any]) -> None:
    """Leave a whole stamp or none."""
    unfinished = STAMP.with_suffix(".tmp")
    unfinished.write_text(json.dumps(stamp, indent=1), "utf-8")
    unfinished.replace(STAMP)


def fingerprint() -> str:
    """Changes with everything that an installation depends on."""
    digest = hashlib.sha256(f"{ROOT}\0".encode())  # an editable installation knows where the checkout is
    # pyvenv.cfg names the interpreter with its version.
    for path in (VENV / "pyvenv.cfg", Path(__file__), CONSTRAINTS, *projects()):
        digest.update(f"{path}\0".encode())
        if path.exists():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def projects() -> list[Path]:
    """The pyproject.toml of every package in the checkout."""
    return [ROOT / "pyproject.toml", ROOT / "kernel" / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]


def local_packages() -> list[str]:
    """The checkout's packages as pip wants them: editable, all in one command, for they depend on each other."""
    root, *others = (path.parent for path in projects())
    return ["-e", f"{root}[{RUNTIMES}]", *(part for folder in others for part in ("-e", str(folder)))]


def build_backends() -> list[str]:
    """What builds the packages, installed once instead of once a package."""
    requirements = {need for path in projects() for need in read_toml(path)["build-system"]["requires"]}
    return [*sorted(requirements), "editables"]  # hatchling asks for it when a build is editable


def group(name: str) -> list[str]:
    """A dependency group of the root's pyproject.toml, flat: the pip that comes with Python 3.11 reads none itself."""
    groups = read_toml(ROOT / "pyproject.toml")["dependency-groups"]
    found: list[str] = []
    for entry in groups[name]:
        found += [entry] if isinstance(entry, str) else group(entry["include-group"])
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file."""
    import tomllib  # Python 3.11: not before the version was checked

    return tomllib.loads(path.read_text("utf-8"))


def make_venv() -> int:
    """Make .venv, unless there is one that works; a half-made or broken one is made anew."""
    works = PYTHON.exists() and not subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode
    if works:
        return 0
    say(f"making {VENV.name} with Python {sys.version.split()[0]} ...")
    command = [sys.executable, "-m", "venv", *(["--clear"] if VENV.exists() else []), str(VENV)]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode:
        return refuse(f"{made.stdout}\nPython could not make {VENV}; on Debian and Ubuntu: apt install python3-venv")
    return 0


def pip(*what: str) -> int:
    """Install quietly: one changing line on a terminal, everything that pip said when it fails."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--constraint", str(CONSTRAINTS), *what]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PIP_NO_COLOR": "1"}
    terminal = sys.stderr.isatty()
    said = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                said.append(line)
                if terminal:
                    show(line.strip())
        except BaseException:
            process.terminate()  # two of them must never work on one .venv
            raise
    if terminal:
        show("")
    if process.returncode:
        sys.stderr.write("".join(said))
        return refuse(
            f"pip failed; what it said is above. If an earlier run was killed half-way, delete {VENV} and try again."
        )
    return 0


def show(line: str) -> None:
    """Replace the terminal's current line."""
    width = shutil.get_terminal_size().columns - 1
    sys.stderr.write("\r" + line[:width].ljust(width) + ("" if line else "\r"))
    sys.stderr.flush()


def say(line: str) -> None:
    """A line on what goes on; standard output belongs to what is run."""
    print(f"dev.py: {line}", file=sys.stderr, flush=True)


def refuse(line: str) -> int:
    """A line on what is wrong, and the exit status that goes with it."""
    print(line, file=sys.stderr)
    return 2


def run(*command: object, folder: Path | None = None) -> int:
    """Run a command of .venv, in the caller's folder or another. onnxruntime reports home unless it is told not to."""
    environment = {"ORT_DISABLE_TELEMETRY": "1", **os.environ}
    with subprocess.Popen([str(part) for part in command], cwd=folder, env=environment) as process:
        try:
            return process.wait()
        except BaseException as ended:
            if not isinstance(ended, KeyboardInterrupt):  # a terminal's Ctrl-C has reached it as well
                process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
