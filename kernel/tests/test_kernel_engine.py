"""The engine, with a third party's plugin: plans are checked, output is whole or absent, failures look like it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def optimize(site, source, out, *more):
    return site.run("optimize", source, "-o", out, "--provider", "paper", *more)


def leftovers(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if "drupe" in each.name]


def test_the_main_job(acme, source, tmp_path):
    out = tmp_path / "out"
    done = optimize(acme, source, out, "--precision", "plain")
    assert done.returncode == 0, done.stderr
    assert (out / "model.txt").read_text() == "hello -- anonymous"
    record = json.loads((out / "drupe.json").read_text())
    assert record["passes"][0] == {
        "name": "sign",
        "brought_by": "acme 1.0",
        "revision": 1,
        "config": {"by": "anonymous"},
    }
    assert record["files"]["model.txt"]["bytes"] == 18
    assert record["check"]["text"].endswith("hello -- anonymous")
    assert record["check"]["runtime_version"] and record["threads"] >= 1
    assert leftovers(tmp_path) == []


def test_the_plan_is_shown_without_writing_anything(acme, source, tmp_path):
    shown = acme.run("optimize", source, "--provider", "paper", "--precision", "plain", "--plan", "--json")
    assert json.loads(shown.stdout)["passes"][0]["name"] == "sign"
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--precision", "int3"), 2, "no recipe for precision 'int3'"),
        (("--precision", "twice"), 4, "needs signed = no, but the model has signed = yes"),
        (("--precision", "odd"), 2, "did you mean by?"),
        (("--precision", "plain", "--quality", "best"), 2, "--quality means nothing"),
        (("--provider", "papper", "--precision", "plain"), 2, "did you mean paper?"),
        (("--device", "gpu", "--precision", "plain"), 2, "device"),
        (("--precision", "plain", "--blok-size", "32"), 2, "--block-size"),
        (("--precision", "plain", "--trust_remote_code"), 2, "never runs"),
    ],
)
def test_what_a_user_gets_wrong_is_said_before_anything_runs(acme, source, tmp_path, arguments, status, message):
    done = optimize(acme, source, tmp_path / "out", *arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_replaced_only_by_force_and_only_if_drupe_made_it(acme, source, tmp_path):
    out = tmp_path / "out"
    assert optimize(acme, source, out, "--precision", "plain").returncode == 0
    (source / "model.txt").write_text("again")
    refused = optimize(acme, source, out, "--precision", "plain")
    assert refused.returncode == 5 and "--force" in refused.stderr
    assert (out / "model.txt").read_text().startswith("hello")
    assert optimize(acme, source, out, "--precision", "plain", "--force").returncode == 0
    assert (out / "model.txt").read_text().startswith("again")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert optimize(acme, source, mine, "--precision", "plain", "--force").returncode == 5
    assert optimize(acme, source, source, "--precision", "plain", "--force").returncode == 5
    assert leftovers(tmp_path) == []


def test_a_model_that_the_target_cannot_run_is_not_written(acme, source, tmp_path):
    (source / "model.txt").write_text("xylophone")
    done = optimize(acme, source, tmp_path / "out", "--precision", "plain")
    assert done.returncode == 4 and "no ink for 'x'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_package_that_does_not_run_is_not_published(acme, source, tmp_path):
    (source / "model.txt").write_text("mute")
    done = optimize(acme, source, tmp_path / "out", "--precision", "plain")
    assert done.returncode == 7 and "nothing is heard" in done.stderr
    assert not (tmp_path / "out").exists()
    assert optimize(acme, source, tmp_path / "out", "--precision", "plain", "--no-verify").returncode == 0


def test_what_is_wrong_is_told_once_however_much_is_asked_for(acme, source, tmp_path):
    (source / "model.txt").write_text("mute")
    done = optimize(acme, source, tmp_path / "out", "--precision", "plain", "--log-level", "2")
    assert done.stderr.count("nothing is heard") == 1 and done.stderr.count("  try: ") == 1
    assert "Traceback" in done.stderr and "run-failed" in done.stderr


def test_a_package_that_nothing_here_runs_is_published_with_what_would_run_it(acme, source, tmp_path):
    code = acme.folder / "acme.py"
    code.write_text(code.read_text().replace('distributions = ("acme",)', 'distributions = ("nowhere",)'))
    done = optimize(acme, source, tmp_path / "out", "--precision", "plain")
    assert "not run here: 'paper' cannot run it here: echo is not installed; pip install acme\n" in done.stdout


def test_a_package_too_large_for_the_device_is_published_and_said_not_to_have_run(acme, source, tmp_path):
    (source / "model.txt").write_text("long " * 3000)
    done = optimize(acme, source, tmp_path / "out", "--precision", "plain")
    assert done.returncode == 0 and "not run here: it needs" in done.stdout


def test_a_costly_pass_runs_once_and_a_failed_one_is_never_kept(acme, source, tmp_path):
    for number in range(2):
        assert optimize(acme, source, tmp_path / f"out{number}", "--precision", "loud").returncode == 0
    assert acme.log.read_text() == "shout ran\n"
    assert (tmp_path / "out1" / "model.txt").read_text() == "HELLO -- anonymous"
    (source / "model.txt").write_text("fail")
    for _ in range(2):
        failed = optimize(acme, source, tmp_path / "out2", "--precision", "loud")
        assert failed.returncode == 70
        assert "ZeroDivisionError: a mistake in a plugin" in failed.stderr
    assert acme.log.read_text() == "shout ran\n" * 3
    assert not (tmp_path / "out2").exists()


def test_what_a_later_pass_refuses_is_told_before_the_work_of_a_costly_one(acme, source, tmp_path):
    (source / "model.txt").write_text("nameless")
    done = optimize(acme, source, tmp_path / "out", "--precision", "loud")
    assert done.returncode == 3 and "nobody signs that" in done.stderr
    assert not acme.log.exists()
    # What is not known without the work is no reason to refuse: in capitals it would be signed.
    assert optimize(acme, source, tmp_path / "out", "--precision", "secret").returncode == 0
    assert (tmp_path / "out" / "model.txt").read_text() == "NAMELESS -- anonymous"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as POSIX systems have them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_a_run_leaves_the_old_output_whole_and_the_next_run_cleans_up(acme, source, tmp_path, number):
    out = tmp_path / "out"
    assert optimize(acme, source, out, "--precision", "plain").returncode == 0
    command = acme.command("optimize", source, "-o", out, "--provider", "paper", "--precision", "plain", "--force")
    command += ["--log-level", "1"]
    environment = {**acme.environ(), "ACME_SLEEP": "30"}
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob(".out.drupe-staging-*/model.txt")):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.02)
    running.send_signal(number)
    _, errors = running.communicate(timeout=20)
    assert (out / "model.txt").read_text() == "hello -- anonymous"
    if number == signal.SIGKILL:
        assert leftovers(tmp_path) != []
    else:
        assert running.returncode == 130 and errors.endswith("error: stopped; nothing was published\n")
        assert "run-failed: " in errors
        assert "Traceback" not in errors
        assert leftovers(tmp_path) == []
    assert optimize(acme, source, out, "--precision", "plain", "--force").returncode == 0
    assert leftovers(tmp_path) == []


def test_ctrl_c_while_the_program_is_still_imported_is_one_line(site):
    (site.folder / "typer.py").write_text("raise KeyboardInterrupt")
    done = site.run("--help")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: stopped\n")


def test_a_run_killed_between_its_two_renames_is_mended_by_the_next(acme, source, tmp_path):
    out = tmp_path / "out"
    assert optimize(acme, source, out, "--precision", "plain").returncode == 0
    out.rename(tmp_path / ".out.drupe-old-0123456789ab")
    refused = optimize(acme, source, out, "--precision", "plain")
    assert refused.returncode == 5 and (out / "model.txt").is_file()
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_no_permission_to_write(acme, source, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    done = optimize(acme, source, locked / "out", "--precision", "plain")
    assert done.returncode == 5 and "no permission" in done.stderr


def test_an_output_below_a_file_is_refused(acme, source, tmp_path):
    done = optimize(acme, source, source / "model.txt" / "out", "--precision", "plain")
    assert done.returncode == 5 and "is a file" in done.stderr


def test_a_package_is_opened_by_the_python_api(acme, source, tmp_path):
    assert optimize(acme, source, tmp_path / "out", "--precision", "plain").returncode == 0
    script = f"import drupe; print(drupe.open({str(tmp_path / 'out')!r}).generate('>'))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=acme.environ(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "> hello -- anonymous\n"


def test_an_unknown_reference_says_what_could_be_named(acme, tmp_path):
    done = acme.run("optimize", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert done.returncode == 3 and "nowhere" in done.stderr and "Traceback" not in done.stderr


def test_the_check_runs_no_code_that_lies_in_the_working_folder(acme, source, tmp_path):
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "pluggy.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    command = [sys.executable, "-P", *acme.command("optimize", source, "-o", tmp_path / "out")[1:]]
    command += ["--provider", "paper", "--precision", "plain"]
    done = subprocess.run(command, env=acme.environ(), cwd=trap, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "sprung").exists()


def test_an_output_whose_name_looks_like_a_pattern_is_mended_too(acme, source, tmp_path):
    out = tmp_path / "m[1]"
    assert optimize(acme, source, out, "--precision", "plain").returncode == 0
    out.rename(tmp_path / ".m[1].drupe-old-0123456789ab")
    assert optimize(acme, source, out, "--precision", "plain").returncode == 5
    assert (out / "model.txt").is_file() and leftovers(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="nothing tells there which folders are in use")
def test_scratch_folders_of_killed_runs_are_removed_and_those_in_use_are_not(tmp_path, monkeypatch):
    from drupe.publishing import A_DAY, scratch

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed, recent, foreign = (tmp_path / name for name in ("drupe-scratch-a", "drupe-scratch-b", "drupe-mine"))
    for folder in (killed, recent, foreign):
        folder.mkdir()
    (killed / "file").touch()
    with scratch() as in_use:
        for folder in (killed, foreign, in_use):
            os.utime(folder, (0, time.time() - 2 * A_DAY))
        with scratch():
            assert in_use.is_dir() and not killed.exists()
    assert sorted(tmp_path.iterdir()) == [foreign, recent]


def package(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "model.txt").write_text(text)
    (folder / "drupe.json").write_text("{}")
    return folder


@pytest.fixture
def staged_and_out(tmp_path):
    """A staged package and an old one, on a disk where the two can change places."""
    from drupe import publishing

    staged, out = package(tmp_path / "staged", "old"), package(tmp_path / "out", "new")
    if not publishing._exchange(staged, out):
        pytest.skip("folders cannot change places here: it takes Linux or macOS, and a disk that can")
    return staged, out


def test_an_old_output_is_replaced_in_one_step(staged_and_out, monkeypatch):
    from drupe.publishing import publish

    staged, out = staged_and_out
    seen = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda *names: (seen.append((out / "model.txt").read_text()), rename(*names)))
    publish(staged, out, force=True)
    assert seen == ["new"], "the only rename comes when the new output is in its place"


def test_an_interruption_behind_that_step_undoes_it(staged_and_out, monkeypatch):
    from drupe.publishing import publish

    def interrupted(*_):
        raise KeyboardInterrupt

    staged, out = staged_and_out
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(staged, out, force=True)
    assert (out / "model.txt").read_text() == "old" and (staged / "model.txt").read_text() == "new"


@pytest.mark.parametrize("in_one_step", [True, False])
def test_the_old_output_is_the_callers_to_remove(tmp_path, monkeypatch, in_one_step):
    from drupe import publishing

    staged, out = package(tmp_path / "staged", "new"), package(tmp_path / "out", "old")
    if not in_one_step:
        monkeypatch.setattr(publishing, "_exchange", lambda *_: False)
    aside = publishing.publish(staged, out, force=True)
    assert aside is not None and (aside / "model.txt").read_text() == "old"
    assert (out / "model.txt").read_text() == "new" and not staged.exists()


def test_a_failed_rename_puts_the_old_output_back(tmp_path):
    from drupe.api import OutputError
    from drupe.publishing import publish

    out = package(tmp_path / "out", "kept")
    with pytest.raises(OutputError):
        publish(tmp_path / "staging-that-is-gone", out, force=True)
    assert (out / "model.txt").read_text() == "kept" and leftovers(tmp_path) == []


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(acme, source, tmp_path):
    (tmp_path / "file").write_text("")
    acme.environment["DRUPE_CACHE"] = str(tmp_path / "file" / "cache")
    assert optimize(acme, source, tmp_path / "out", "--precision", "plain").returncode == 0


def test_folders_made_for_an_output_that_failed_are_removed(acme, source, tmp_path):
    (source / "model.txt").write_text("mute")
    assert optimize(acme, source, tmp_path / "new" / "deep" / "out", "--precision", "plain").returncode == 7
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("threads", [-1, 100_000])
def test_a_number_of_threads_that_makes_no_sense_is_refused(threads):
    from drupe.api import Request, UsageError

    with pytest.raises(UsageError, match="threads"):
        Request("model", Path("out"), threads=threads)
