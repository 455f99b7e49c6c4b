"""Tuning real packages: what is written, what stays as it was, repeating, and how a stopped tuning ends."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sites import Site, program_here

import drupe
from drupe.api import DrupeError, registry
from drupe_onnx.session_options import OWN, session_options
from drupe_tune_session.bench import SessionBench

pytest.importorskip("onnxruntime_genai")

Times = Callable[[Mapping[str, Any]], None]
BUT_THREADS = {"spinning", "graph_optimization_level", "arena"}
FASTER_ALONE = {"threads 1": 0.5, "spinning off": 0.8}
PROGRAM = [sys.executable, "-c", "from drupe_commands.program import main; main()", "tune-session"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a package but its record."""
    files = {each.relative_to(folder).as_posix(): each for each in folder.rglob("*") if each.is_file()}
    return {name: each.read_bytes() for name, each in files.items() if name != "drupe.json"}


def record(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "drupe.json").read_text())
    return read


def tuned_pass(folder: Path) -> dict[str, Any]:
    """What the record's plan says of the pass."""
    (found,) = (each for each in record(folder)["plan"]["passes"] if each["name"] == "tune-session")
    return dict(found["config"])


def assert_true_digests(folder: Path) -> None:
    files = record(folder)["files"]
    assert files == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents(folder).items()
    }


def tune(*arguments: object) -> dict[str, Any]:
    done = program_here("tune-session", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture
def nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a session was opened to be measured")

    monkeypatch.setattr(SessionBench, "open", refuse)


def test_what_is_faster_is_written_into_the_package_with_a_true_record(package: Path, times: Times) -> None:
    times(FASTER_ALONE)
    before = contents(package)
    told = tune(package, "--set", 'values={"threads":[2,1]}')
    assert told["changed"] and told["chosen"] == {"threads": 1, "spinning": False}
    assert told["replaced"] == {"threads": 2, "spinning": True}
    assert told["against_portable"]["ratio"]["median"] == pytest.approx(0.4)
    options = session_options(package)
    assert options["intra_op_num_threads"] == 1 and options["session.intra_op.allow_spinning"] == "0"
    after = contents(package)
    assert {name for name in before if before[name] != after.get(name)} == {"genai_config.json"}
    assert_true_digests(package)
    entry = record(package)["passes"][-1]
    assert entry["name"] == "tune-session" and entry["measured"]["trials"]
    with drupe.open(package) as session:
        assert session.threads == 1 and session.generate("def parse(", max_new_tokens=2) is not None


def test_a_tuned_package_is_repeated_without_measuring_to_the_same_bytes(
    package: Path, times: Times, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    times(FASTER_ALONE)
    tune(package)
    request.getfixturevalue("nothing_is_measured")
    done = program_here("run", package / "drupe.json", "-o", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "again") == contents(package)


def test_tuning_again_begins_with_the_portable_settings(package: Path, times: Times) -> None:
    portable = contents(package)
    times(FASTER_ALONE)
    tune(package)
    times({"arena off": 0.5})
    assert tune(package)["chosen"] == {"arena": False}
    assert session_options(package)["intra_op_num_threads"] == 2
    times({})
    assert tune(package)["changed"]
    assert contents(package) == portable
    assert_true_digests(package)


def test_where_nothing_is_faster_nothing_is_written(package: Path, times: Times) -> None:
    times({})
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in package.rglob("*")}
    told = tune(package)
    assert not told["changed"] and told["chosen"] == {}
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in package.rglob("*")} == before
    shown = program_here("tune-session", package)
    assert "the package is as it was" in shown.stdout and "within the noise" in shown.stdout


def test_real_times_leave_a_package_that_runs_and_says_what_was_tried(package: Path) -> None:
    told = tune(package, "--seconds", 5)
    assert {name for each in told["trials"] for name in each["changes"]} >= {"spinning", "arena"}
    assert all(each["verdict"] != "failed" for each in told["trials"]), told
    assert_true_digests(package)
    with drupe.open(package) as session:
        assert session.generate("def parse(", max_new_tokens=2) is not None


def test_a_package_without_a_genai_config_keeps_its_options_in_a_file_of_its_own(
    embedder: Path, times: Times, tmp_path: Path
) -> None:
    times({"threads 1": 0.5, "spinning off": 0.5, "graph_optimization_level extended": 0.5, "arena off": 0.5})
    told = tune(embedder, "--set", 'values={"threads":[1]}')
    assert told["chosen"]["graph_optimization_level"] == "extended"
    assert json.loads((embedder / OWN).read_text()) == {
        "intra_op_num_threads": 1,
        "session.intra_op.allow_spinning": "0",
        "graph_optimization_level": "ORT_ENABLE_EXTENDED",
        "enable_cpu_mem_arena": False,
    }
    assert_true_digests(embedder)
    with drupe.open(embedder) as session:
        options = session.graphs["model"].get_session_options()
        assert session.threads == options.intra_op_num_threads == 1
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert options.enable_cpu_mem_arena is False and "EXTENDED" in str(options.graph_optimization_level)
    done = program_here("run", embedder / "drupe.json", "-o", tmp_path / "again", "--log-level", 1)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "again") == contents(embedder)
    times({})
    assert tune(embedder)["changed"] and not (embedder / OWN).exists()
    assert_true_digests(embedder)


def test_run_pass_makes_a_tuned_package_and_leaves_the_first_as_it_was(
    package: Path, times: Times, tmp_path: Path
) -> None:
    times(FASTER_ALONE)
    before = contents(package)
    done = program_here("run-pass", "tune-session", package, "-o", tmp_path / "tuned", "--set", "seconds=20")
    assert done.returncode == 0, done.stderr
    assert "note: session settings, tuned: threads 1, spinning off in place of" in done.stderr
    assert session_options(tmp_path / "tuned")["intra_op_num_threads"] == 1
    assert contents(package) == before
    assert_true_digests(tmp_path / "tuned")


def test_a_value_that_is_named_is_written_and_not_measured(
    package: Path, nothing_is_measured: None, tmp_path: Path
) -> None:
    given = ("--set", "threads=1", "--set", "spinning=off", "--set", "seconds=0")
    done = program_here("run-pass", "tune-session", package, "-o", tmp_path / "fixed", *given)
    assert done.returncode == 0, done.stderr
    assert session_options(tmp_path / "fixed")["session.intra_op.allow_spinning"] == "0"


def test_optimize_tunes_where_it_is_asked_to_and_repeats_the_choice(
    checkpoint: Path, times: Times, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    times(FASTER_ALONE)
    drupe.optimize(checkpoint, tmp_path / "out", quality="fast", tune=True, provider="cpu")
    config = tuned_pass(tmp_path / "out")
    assert config["chosen"] == {"threads": 1, "spinning": False} and "when" not in config
    assert record(tmp_path / "out")["timings"]["finishing_seconds"] > 0
    assert_true_digests(tmp_path / "out")
    request.getfixturevalue("nothing_is_measured")
    assert program_here("run", tmp_path / "out" / "drupe.json", "-o", tmp_path / "again").returncode == 0
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_a_small_package_is_not_measured_unasked(checkpoint: Path, nothing_is_measured: None, tmp_path: Path) -> None:
    drupe.optimize(checkpoint, tmp_path / "out", quality="fast", provider="cpu")
    assert tuned_pass(tmp_path / "out") == {"when": "worthwhile"}
    drupe.optimize(checkpoint, tmp_path / "unchecked", quality="fast", provider="cpu", verify=False)
    names = [each["name"] for each in record(tmp_path / "unchecked")["passes"]]
    assert "tune-session" not in names


@pytest.mark.parametrize("busy", [[True], [False, True], [False, False]])
def test_what_is_tuned_unasked_stays_portable_on_a_busy_machine(
    checkpoint: Path, times: Times, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: list[bool]
) -> None:
    """busy: whether it is, before and after the measuring."""
    seen = iter(busy)
    monkeypatch.setattr("drupe_tune_session.finishing.WORTHWHILE", 0)
    monkeypatch.setattr(
        "drupe_tune_session.finishing.disturbance", lambda: "others leave no core idle" if next(seen) else None
    )
    times(FASTER_ALONE)
    out = tmp_path / "out"
    drupe.optimize(checkpoint, out, quality="fast", provider="cpu")
    chosen = {} if any(busy) else {"threads": 1, "spinning": False}
    assert tuned_pass(out)["chosen"] == chosen and list(seen) == []
    assert (session_options(out)["intra_op_num_threads"] == 1) is bool(chosen)
    (notice,) = (each for each in record(out)["notices"] if each["about"] == "session settings")
    assert ("others leave no core idle" in notice["what"]) is any(busy)


@pytest.mark.parametrize(
    ("asked", "tried"),
    [
        ({"tune": False}, None),
        ({"tune": True, "threads": 2}, BUT_THREADS),
        ({"tune": True, "settings": {"package-genai": {"threads": 2}}}, BUT_THREADS),
        ({"settings": {"tune-session": {"keep": ["arena", "spinning", "threads"]}}}, {"graph_optimization_level"}),
    ],
)  # fmt: skip
def test_what_the_user_fixes_is_not_tried(
    checkpoint: Path, times: Times, tmp_path: Path, asked: dict[str, Any], tried: set[str] | None
) -> None:
    times({"threads 1": 0.1})
    drupe.optimize(checkpoint, tmp_path / "out", quality="fast", verify=False, provider="cpu", **asked)
    entries = [each for each in record(tmp_path / "out")["passes"] if each["name"] == "tune-session"]
    names = {name for entry in entries for each in entry["measured"]["trials"] for name in each["changes"]}
    assert (names if entries else None) == tried


def test_a_plan_says_that_it_will_tune(checkpoint: Path, nothing_is_measured: None) -> None:
    shown = program_here("optimize", checkpoint, "--plan").stdout
    assert "tune-session" in shown and "seconds=10" in shown
    assert "tune-session" not in program_here("optimize", checkpoint, "--plan", "--no-tune").stdout


def test_a_package_for_another_machine_keeps_the_portable_settings_and_says_so(
    checkpoint: Path, nothing_is_measured: None, tmp_path: Path
) -> None:
    done = program_here("optimize", checkpoint, "-o", tmp_path / "out", "--provider", "cuda", "--tune", "--no-verify")
    if registry().provider("cuda").target().here:
        pytest.skip("this machine has a GPU")
    assert done.returncode == 0, done.stderr
    assert "note: session settings, portable: nothing was measured: no device for 'cuda' is here" in done.stderr
    assert "intra_op_num_threads" not in session_options(tmp_path / "out")
    assert tuned_pass(tmp_path / "out") == {"chosen": {}}
    refused = program_here("tune-session", tmp_path / "out")
    assert refused.returncode == 6 and "cuda" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("nowhere",), 3, "there is no package 'nowhere'"),
        (("PACKAGE", "--seconds", "0"), 2, "nothing can be measured in 0 s"),
        (("PACKAGE", "--seconds", "-1"), 2, "at least 0"),
        (("PACKAGE", "--set", "threds=1"), 2, "threds"),
        (("PACKAGE", "--set", "threads"), 2, "--set takes KEY=VALUE"),
        (("PACKAGE", "--set", "chosen={}"), 2, "has no effect"),
        (("PACKAGE", "--set", 'values={"spining":["off"]}'), 2, "did you mean spinning?"),
        (("PACKAGE", "--set", 'values={"spinning":["maybe"]}'), 2, "'maybe'"),
        (("PACKAGE", "--set", 'keep=["threads","spinning","arena","graph_optimization_level"]'), 2, "nothing to try"),
    ],
)
def test_what_cannot_be_tuned_is_said_once(
    package: Path, arguments: tuple[str, ...], status: int, words: str, nothing_is_measured: None
) -> None:
    before = contents(package)
    done = program_here("tune-session", *(package if each == "PACKAGE" else each for each in arguments))
    assert done.returncode == status and words in done.stderr, done.stderr
    assert not done.stdout and done.stderr.count("error:") == 1 and contents(package) == before


def test_a_graph_that_is_no_package_is_pointed_to_run_pass(package: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(package, tmp_path / "bare"))
    (bare / "drupe.json").unlink()
    done = program_here("tune-session", bare)
    assert done.returncode == 3 and "drupe run-pass tune-session" in done.stderr


def test_a_package_that_cannot_be_measured_is_checked_and_published_as_ever(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        from drupe.api import CheckFailed

        raise CheckFailed("it does not open")

    monkeypatch.setattr(SessionBench, "open", broken)
    drupe.optimize(checkpoint, tmp_path / "out", quality="fast", tune=True, provider="cpu")
    (notice,) = (each for each in record(tmp_path / "out")["notices"] if each["about"] == "session settings")
    assert notice["handling"] == "portable" and "it does not open" in notice["what"]
    assert record(tmp_path / "out")["checked"]


PROVIDER = """
from drupe.api import Ref, hookimpl
from drupe_ep_cpu.provider import Cpu
from drupe_onnx import THREADS, SessionSetting

class Acme(Cpu):
    name = "acme"
    summary = "Acme's processors"

    def session_settings(self):
        pattern = SessionSetting("pattern", "enable_mem_pattern", [False], default=True)
        sleep = SessionSetting("sleep", "session.inter_op.allow_spinning", ["1"], default="0")
        return [pattern, THREADS.trying(1), sleep]

@hookimpl
def drupe_execution_providers():
    return [Ref("acme", "acme_cpu:Acme", Acme.summary, device="cpu")]
"""


def test_the_settings_that_a_third_partys_provider_declares_are_tried(
    checkpoint: Path, times: Times, tmp_path: Path
) -> None:
    times({"pattern off": 0.5, "sleep 1": 0.5})
    (tmp_path / "site").mkdir()
    site = Site(tmp_path / "site")
    site.add("acme-cpu", {"acme-cpu": "acme_cpu"}, {"acme_cpu.py": PROVIDER})
    out = tmp_path / "out"
    done = site.run_here("optimize", checkpoint, "-o", out, "--provider", "acme", "--tune", "--quality", "fast")
    assert done.returncode == 0, done.stderr
    tried = [list(each["changes"])[-1] for each in record(out)["passes"][-1]["measured"]["trials"]]
    assert tried == ["pattern", "threads", "sleep"]
    assert tuned_pass(out)["chosen"] == {"pattern": False, "sleep": "1"}
    options = session_options(out)
    assert options["enable_mem_pattern"] is False and options["session.inter_op.allow_spinning"] == "1"


def children(of: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(of)], capture_output=True, text=True, check=False).stdout
    return [int(each) for each in found.split()]


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_tuning_leaves_the_package_whole_and_no_process(package: Path, number: signal.Signals) -> None:
    before = {**contents(package), "drupe.json": (package / "drupe.json").read_bytes()}
    # A slower value ends the trials of `threads`, which are in order. Those of `spinning` go on.
    endless = '{"spinning":' + json.dumps(["on", "off"] * 500) + "}"
    run = subprocess.Popen(
        [*PROGRAM, str(package), "--seconds", "3600", "--set", f"values={endless}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 120
        while not children(run.pid) and run.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        started = children(run.pid)
        time.sleep(1)
        assert started and run.poll() is None
        os.kill(run.pid, number)
        _, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode in (-signal.SIGKILL, 130), err
    assert {**contents(package), "drupe.json": (package / "drupe.json").read_bytes()} == before
    assert_true_digests(package)
    until = time.monotonic() + 60
    while any(Path(f"/proc/{each}").exists() for each in started) and time.monotonic() < until:
        time.sleep(0.05)
    tuned = program_here("tune-session", package, "--set", 'values={"spinning":["off"]}')
    assert tuned.returncode == 0, tuned.stderr
    assert [each.name for each in package.parent.iterdir() if "drupe" in each.name] == []


def test_values_that_a_search_may_fix_have_types_and_choices() -> None:
    from drupe.api import configure
    from drupe_tune_session.tune_session import TuneSessionConfig

    for wrong in ({"spinning": "maybe"}, {"threads": 0}, {"graph_optimization_level": "most"}, {"when": "never"}):
        with pytest.raises(DrupeError):
            configure("pass 'tune-session'", TuneSessionConfig, wrong)
