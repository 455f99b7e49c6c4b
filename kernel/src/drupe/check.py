"""The closing check: a package is opened in its runtime, in a process of its own, and has to generate text."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drupe.errors import CheckFailed, DrupeError, RuntimeMissing
from drupe.opening import resolve, runtime_for
from drupe.publishing import folder_bytes

if TYPE_CHECKING:
    from drupe.model import Model
    from drupe.plugins import Registry
    from drupe.target import ExecutionProvider, Target

PROMPT = "The quick brown fox"
NEW_TOKENS = 8
MAX_LENGTH = 64
"""Room for prompt and answer; runtimes take memory for all of it."""
HEADROOM = 1.3
"""What a runtime takes to hold a package, as a multiple of its size."""


@dataclass(frozen=True)
class Check:
    """What came of the closing check. not_run: why it was not run here, None where it was."""

    runtime: str = ""
    not_run: str | None = None
    text: str = ""
    seconds: float = 0.0


def check_package(model: Model, target: Target, provider: ExecutionProvider, registry: Registry) -> Check:
    """Run the package in `model.location` in a child process.

    Raises CheckFailed where it does not open, does not generate, or computes what is not finite.
    """
    try:
        runtime = runtime_for(model, target, provider, registry)
    except RuntimeMissing as missing:
        return Check(not_run=missing.what)
    needed = int(HEADROOM * folder_bytes(model.location))
    if target.device and target.device.memory is not None and target.device.memory < needed:
        return Check(runtime.name, f"it needs {needed >> 20} MiB, {target.device.memory >> 20} MiB are free")
    return _in_child(model.location, target.provider, runtime.name)


def _in_child(folder: Path, provider: str, runtime: str) -> Check:
    started = time.perf_counter()
    command = [sys.executable, "-P", "-m", "drupe.check", str(folder), provider, runtime]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    seconds = time.perf_counter() - started
    if done.returncode == -getattr(signal, "SIGKILL", 9):
        return Check(runtime, "the system stopped the check, most likely for want of memory", seconds=seconds)
    if done.returncode == RuntimeMissing.exit_status:
        return Check(runtime, done.stderr.strip().partition("\n")[0], seconds=seconds)
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise CheckFailed(
            f"the package does not run in {runtime}: {tail or f'exit status {done.returncode}'}",
            cure="--no-verify publishes it all the same; please report this with the model's config.json",
        )
    return Check(runtime, text=json.loads(done.stdout.splitlines()[-1])["text"], seconds=seconds)


def main(folder: str, provider_name: str, runtime_name: str) -> None:
    """What the child does: open, generate greedily, print the text as JSON."""
    from drupe.plugins import registry
    from drupe.runtime import Generation

    found = registry()
    target = found.provider(provider_name).target()
    with found.runtimes.make(runtime_name).open(resolve(folder, {}), target, max_length=MAX_LENGTH) as session:
        text = session.generate(PROMPT, Generation(max_new_tokens=NEW_TOKENS, validate=True))
    print(json.dumps({"text": text}))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except DrupeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
    sys.stdout.flush()
    os._exit(0)  # a runtime's own clean-up at exit is not what is being checked
