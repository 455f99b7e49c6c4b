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
GRACE = 10.0  # seconds that a started command gets to clean up
RUNTIMES = "cpu"  # the extra of the root distribution that installs a runtime

USAGE = """usage: python3 dev.py demo|test|lint|bench [arguments]

  demo              optimize drupe's built-in model and compare it before and after
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
    """Every checker runs, also after one has failed, so one run shows all problems."""
    if arguments:
        return refuse("lint takes no arguments.")
    failed = set_up("lint")
    if failed:
        return failed
    checks = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))
    return max(run(PYTHON, "-m", *check, folder=ROOT) for check in checks)


def bench(arguments: list[str]) -> int:
    """Run a benchmark: each file in bench/ with a main function is one."""
    names = sorted(path.stem for path in (ROOT / "bench").glob("*.py") if "__main__" in path.read_text("utf-8"))
    if not arguments or arguments[0] not in names:
        return refuse(f"usage: python3 dev.py bench {'|'.join(names)} [arguments]")
    return set_up("bench") or run(PYTHON, ROOT / "bench" / f"{arguments[0]}.py", *arguments[1:])


def set_up(purpose: str) -> int:
    """Install what `purpose` needs into .venv, including the checkout's own packages; returns 0 on success."""
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
    failed = remove_gone() or pip(*build_backends()) or pip("--no-build-isolation", *local_packages(), *needs)
    if failed:
        return failed
    kept = done["tools"] if done.get("files") == files else []
    write_stamp({"files": files, "tools": sorted({*kept, *needs})})
    say(f"installed in {time.monotonic() - start:.0f} s")
    return 0


def read_stamp() -> dict[str, Any]:
    """The stamp of the last complete installation: a fingerprint of its files, and the installed tools."""
    try:
        stamp: dict[str, Any] = json.loads(STAMP.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp


def write_stamp(stamp: dict[str, Any]) -> None:
    """Write the stamp completely or not at all."""
    unfinished = STAMP.with_suffix(".tmp")
    unfinished.write_text(json.dumps(stamp, indent=1), "utf-8")
    unfinished.replace(STAMP)


def fingerprint() -> str:
    """A digest of everything that an installation depends on."""
    digest = hashlib.sha256(f"{ROOT}\0".encode())  # an editable installation knows where the checkout is
    # pyvenv.cfg names the interpreter with its version.
    for path in (VENV / "pyvenv.cfg", Path(__file__), CONSTRAINTS, *projects()):
        digest.update(f"{path}\0".encode())
        if path.exists():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def projects() -> list[Path]:
    """The pyproject.toml of every package in the checkout."""
    parts = (path for folder in ("libraries", "plugins") for path in sorted(ROOT.glob(f"{folder}/*/pyproject.toml")))
    return [ROOT / "pyproject.toml", ROOT / "kernel" / "pyproject.toml", *parts]


def local_packages() -> list[str]:
    """pip's arguments for the checkout's packages: editable, and all at once, because they depend on each other."""
    root, *others = (path.parent for path in projects())
    return ["-e", f"{root}[{RUNTIMES}]", *(part for folder in others for part in ("-e", str(folder)))]


def remove_gone() -> int:
    """Uninstall packages that the checkout no longer has, such as renamed ones: their entry points would stay."""
    listing = subprocess.run([PYTHON, "-m", "pip", "list", "--format=json"], capture_output=True, text=True)
    if listing.returncode:
        return refuse(listing.stderr)
    here = {read_toml(path)["project"]["name"] for path in projects()}
    gone = [each["name"] for each in json.loads(listing.stdout) if each["name"].startswith("drupe-")]
    gone = [name for name in gone if name.replace("_", "-") not in here]
    return subprocess.call([PYTHON, "-m", "pip", "uninstall", "-q", "-y", *gone]) if gone else 0


def build_backends() -> list[str]:
    """The build requirements of all packages, which are installed once instead of for each package."""
    requirements = {need for path in projects() for need in read_toml(path)["build-system"]["requires"]}
    return [*sorted(requirements), "editables"]  # hatchling asks for it when a build is editable


def group(name: str) -> list[str]:
    """A dependency group of the root's pyproject.toml, flattened: the pip of Python 3.11 cannot read groups."""
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
    """Make .venv unless a working one exists. A broken one is made again."""
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
    """Install quietly: show one changing line on a terminal, and pip's whole output if it fails."""
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
            process.terminate()  # two pip processes must never work on one .venv
            raise
    if terminal:
        show("")
    if process.returncode:
        sys.stderr.write("".join(said))
        return refuse(
            f"pip failed; its output is above. If an earlier run was killed half-way, delete {VENV} and try again."
        )
    return 0


def show(line: str) -> None:
    """Replace the terminal's current line."""
    width = shutil.get_terminal_size().columns - 1
    sys.stderr.write("\r" + line[:width].ljust(width) + ("" if line else "\r"))
    sys.stderr.flush()


def say(line: str) -> None:
    """Print progress to standard error: standard output belongs to the command that is run."""
    print(f"dev.py: {line}", file=sys.stderr, flush=True)


def refuse(line: str) -> int:
    """Print an error; returns the exit status for it."""
    print(line, file=sys.stderr)
    return 2


def run(*command: object, folder: Path | None = None) -> int:
    """Run a command of .venv, in the caller's folder or another. onnxruntime reports home unless it is told not to."""
    environment = {"ORT_DISABLE_TELEMETRY": "1", **os.environ}
    with subprocess.Popen([str(part) for part in command], cwd=folder, env=environment) as process:
        try:
            return process.wait()
        except BaseException as ended:
            if not isinstance(ended, KeyboardInterrupt):  # Ctrl-C on a terminal has reached the command as well
                process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
