"""The closing check: in a process of its own, a package has to generate text and to be like its source."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.errors import CheckFailed, DrupeError, ModelError, PlanError, RuntimeMissing
from drupe.opening import resolve, runtime_for
from drupe.plan import VERIFYING, configure
from drupe.publishing import folder_bytes

if TYPE_CHECKING:
    from drupe.engine import Job
    from drupe.evaluation import EvaluatorConfig
    from drupe.model import Model

PROMPT = "The quick brown fox"
NEW_TOKENS = 8
MAX_LENGTH = 64
"""Room for prompt and answer; runtimes take memory for all of it."""
TOLD = {error.exit_status for error in DrupeError.__subclasses__()}
"""With these the child ends after it has told what is wrong; with others it has failed to."""
REPORT = "please report this with the model's config.json"
HEADROOM = 1.3
"""What a runtime takes to hold a package, as a multiple of its size."""


@dataclass(frozen=True)
class Check:
    """What came of the closing check. not_run: why it was not run here, None where it was.

    metrics: how the package compares with its source, on what `settings` say. not_compared: why it was not.
    """

    runtime: str = ""
    not_run: str | None = None
    text: str = ""
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    not_compared: str | None = None

    @property
    def comparison(self) -> str:
        """The metrics for a person, or why there are none."""
        metrics = (f"{name.replace('_', ' ')} {value:.4g}" for name, value in self.metrics.items())
        return f"not here: {self.not_compared}" if self.not_compared else ", ".join(metrics)


def check_package(model: Model, job: Job) -> Check:
    """Run the package in `model.location` in a child process, and compare it with its source.

    Raises CheckFailed where it does not open or generate, computes what is not finite, or is not like its source.
    """
    try:
        runtime = runtime_for(model, job.target, job.provider, job.registry)
    except RuntimeMissing as missing:
        return Check(not_run=_with_cure(missing.what, missing.cure))
    needed, device = int(HEADROOM * folder_bytes(model.location)), job.target.device
    if device and device.memory is not None and device.memory < needed:
        return Check(runtime.name, f"it needs {needed >> 20} MiB, {device.memory >> 20} MiB are free")
    if job.provider.verifier not in job.registry.evaluators.claims:
        return _in_child(job, runtime.name, model.location)
    settings = verifying(job)
    return replace(_in_child(job, runtime.name, model.location, settings), settings=settings.model_dump(mode="json"))


def verifying(job: Job) -> EvaluatorConfig:
    """The settings of the comparison: the evaluator's own for this, and what the user asked for."""
    evaluator = job.registry.evaluators.make(job.provider.verifier)
    given = {name: job.request.options[name] for name in VERIFYING if name in job.request.options}
    return configure(f"evaluator '{evaluator.name}'", evaluator.Config, {**evaluator.verifying, **given})


def _in_child(job: Job, runtime: str, folder: Path, settings: EvaluatorConfig | None = None) -> Check:
    started = time.perf_counter()
    command = [sys.executable, "-P", "-m", "drupe.check", str(folder), job.target.provider, runtime]
    if settings is not None:  # without what is computed of them
        command += [str(job.source.location), settings.model_dump_json(round_trip=True, exclude_unset=True)]
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as scratch:  # on the package's own disk
        there = {**os.environ, "TMPDIR": scratch}
        done = subprocess.run(command, env=there, capture_output=True, encoding="utf-8", errors="replace", check=False)
    seconds = time.perf_counter() - started
    if done.returncode == -getattr(signal, "SIGKILL", 9):
        return Check(runtime, "the system stopped the check, most likely for want of memory", seconds=seconds)
    if done.returncode in TOLD:
        error = json.loads(done.stdout.splitlines()[-1])
    else:
        tail = "\n".join(done.stderr.strip().splitlines()[-8:])
        error = {"what": tail or f"exit status {done.returncode}", "cure": None}
    if done.returncode == RuntimeMissing.exit_status:
        return Check(runtime, _with_cure(**error), seconds=seconds)
    if done.returncode:
        raise CheckFailed(
            f"the package fails its check in {runtime}: {error['what']}",
            cure=_with_cure(error["cure"] or REPORT, "--no-verify publishes it all the same"),
        )
    return Check(runtime, seconds=seconds, **json.loads(done.stdout.splitlines()[-1]))


def _with_cure(what: str, cure: str | None) -> str:
    """Both in one line, for where a line is all there is."""
    return f"{what}; {cure}" if cure else what


def main(folder: str, provider: str, runtime: str, source: str = "", settings: str = "") -> None:
    """What the child does: open, generate greedily, compare with the source; print the fields of Check as JSON."""
    from drupe.plugins import registry
    from drupe.runtime import Generation

    found = registry()
    target = found.provider(provider).target()
    with found.runtimes.make(runtime).open(resolve(folder, {}), target, max_length=MAX_LENGTH) as session:
        text = session.generate(PROMPT, Generation(max_new_tokens=NEW_TOKENS, validate=True))
    evaluator = found.provider(provider).verifier
    compared = _compare(folder, provider, evaluator, source, settings) if source else {}
    print(json.dumps({"text": text, "not_compared": f"no evaluator '{evaluator}' is installed", **compared}))


def _compare(folder: str, provider: str, evaluator: str, source: str, settings: str) -> dict[str, Any]:
    from drupe.context import Progress
    from drupe.evaluating import evaluate

    try:
        metrics = evaluate(folder, source, evaluator, json.loads(settings), provider, Progress())
    except (ModelError, PlanError, RuntimeMissing) as reason:
        return {"not_compared": reason.what}
    return {"metrics": {metric.name: metric.value for metric in metrics}, "not_compared": None}


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
        status = 0
    except DrupeError as error:  # without where it was met, which is a folder that is gone when this is read
        print(json.dumps({"what": error.what, "cure": error.cure}))
        status = error.exit_status
    sys.stdout.flush()
    os._exit(status)  # a runtime's own clean-up at exit is not what is being checked
