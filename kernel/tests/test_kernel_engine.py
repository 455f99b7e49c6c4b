"""The engine with a third party's plugin: plans are checked, output is complete or absent, failures are reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sites import Done, Site


@pytest.fixture
def acme(acme: Site) -> Site:
    """A site where only acme and the program's commands ship with Drupe."""
    acme.ship("acme", "drupe-commands")
    return acme


def optimize(site: Site, source: Path, out: Path, *more: object) -> Done:
    return site.run_here("optimize", source, "-o", out, *more)


def plain(site: Site, source: Path, out: Path, *more: object) -> Done:
    return optimize(site, source, out, "--precision", "plain", *more)


def leftovers(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if "drupe" in each.name]


def test_optimize_writes_the_package_and_its_record(acme, source, tmp_path):
    out = tmp_path / "out"
    done = acme.run("optimize", source, "-o", out, "--precision", "plain")
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
    assert record["target"] == {"provider": "paper", "runtime_version": "", "brought_by": "acme 1.0"}
    assert record["checked"] is True and record["check"]["metrics"] == {"length": 18, "longer": 13}
    assert record["check"]["text"].endswith("hello -- anonymous")
    assert record["check"]["runtime_version"] and record["threads"] >= 1
    assert record["plan"]["source"]["fingerprint"]
    assert leftovers(tmp_path) == []


def test_the_plan_is_shown_without_writing_anything(acme, source, tmp_path):
    shown = acme.run_here("optimize", source, "--precision", "plain", "--plan", "--json")
    assert json.loads(shown.stdout)["plan"]["passes"][0]["name"] == "sign"
    assert not (tmp_path / "package").exists() and not acme.events.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--precision", "int3"), 2, "no recipe for precision 'int3'"),
        (("--precision", "twice"), 4, "needs signed = no, but the model has signed = yes"),
        (("--precision", "odd"), 8, "acme gives the pass 'sign' an unknown key 'bye'; did you mean by?"),
        (("--precision", "plain", "--volume", "loud"), 2, "--volume has no effect with --precision plain on paper"),
        (("--precision", "int4", "--volume", "lound"), 2, "did you mean loud?"),
        (("--provider", "papper", "--precision", "plain"), 2, "did you mean paper?"),
        (("--device", "gpu", "--precision", "plain"), 2, "device"),
        (("--precision", "plain", "--auhtor", "me"), 2, "--author"),
    ],
)
def test_an_error_of_the_user_or_of_a_recipe_is_reported_before_anything_runs(
    acme, source, tmp_path, arguments, status, message
):
    done = optimize(acme, source, tmp_path / "out", *arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_replaced_only_by_force_and_only_if_drupe_made_it(acme, source, tmp_path):
    out = tmp_path / "out"
    assert plain(acme, source, out).returncode == 0
    (source / "model.txt").write_text("again")
    refused = plain(acme, source, out)
    assert refused.returncode == 5 and "--force" in refused.stderr
    assert (out / "model.txt").read_text().startswith("hello")
    assert plain(acme, source, out, "--force").returncode == 0
    assert (out / "model.txt").read_text().startswith("again")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert plain(acme, source, mine, "--force").returncode == 5
    assert plain(acme, source, source, "--force").returncode == 5
    assert leftovers(tmp_path) == []


def test_a_model_that_the_target_cannot_run_is_not_written(acme, source, tmp_path):
    (source / "model.txt").write_text("xylophone")
    done = plain(acme, source, tmp_path / "out")
    assert done.returncode == 4 and "no ink for 'x'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_package_that_fails_its_check_is_not_published(acme, source, tmp_path):
    (source / "model.txt").write_text("mute")
    done = plain(acme, source, tmp_path / "out")
    assert done.returncode == 7 and "nothing is heard" in done.stderr
    assert not (tmp_path / "out").exists()
    assert plain(acme, source, tmp_path / "out", "--no-verify").returncode == 0


def test_an_error_is_printed_once_even_with_a_traceback_and_events(acme, source, tmp_path):
    (source / "model.txt").write_text("mute")
    done = plain(acme, source, tmp_path / "out", "--log-level", "2")
    assert done.stderr.count("error: nothing is heard") == 1
    assert "Traceback" in done.stderr and "run-failed" in done.stderr


# Packages that cannot be checked


def nowhere(acme: Site) -> None:
    """Make acme's runtime require a distribution that is not installed."""
    code = acme.folder / "acme.py"
    code.write_text(code.read_text().replace('distributions = ("acme",)', 'distributions = ("nowhere",)'))


def test_a_package_whose_runtime_is_not_installed_is_published_as_unchecked(acme, source, tmp_path):
    nowhere(acme)
    done = plain(acme, source, tmp_path / "out")
    assert done.returncode == 0 and "'paper' cannot run it here: echo is not installed" in done.stdout
    assert json.loads((tmp_path / "out" / "drupe.json").read_text())["checked"] is False


def test_nothing_is_published_if_a_required_check_cannot_be_made(acme, source, tmp_path):
    nowhere(acme)
    done = plain(acme, source, tmp_path / "new" / "out", "--require-check")
    assert done.returncode == 9
    assert "the package could not be checked: 'paper' cannot run it here: echo is not installed" in done.stderr
    assert not (tmp_path / "new").exists()


def test_nothing_is_published_if_a_required_comparison_cannot_be_made(acme, source, tmp_path):
    code = acme.folder / "acme.py"
    code.write_text(code.read_text().replace('evaluator = "length"', "evaluator = None"))
    assert plain(acme, source, tmp_path / "out").returncode == 0
    done = plain(acme, source, tmp_path / "out2", "--require-check")
    assert done.returncode == 9 and "nothing compares it" in done.stderr
    assert not (tmp_path / "out2").exists()


def test_require_check_publishes_a_package_that_passes_and_contradicts_no_verify(acme, source, tmp_path):
    assert plain(acme, source, tmp_path / "out", "--require-check").returncode == 0
    contradiction = plain(acme, source, tmp_path / "out2", "--require-check", "--no-verify")
    assert contradiction.returncode == 2 and "contradict each other" in contradiction.stderr


def test_a_model_of_unknown_task_is_published_as_unchecked(acme, source, tmp_path):
    plugin = acme.folder / "acme_plugin.py"
    plugin.write_text(plugin.read_text().replace('task="echoing"', 'task="humming"'))
    done = plain(acme, source, tmp_path / "out")
    assert done.returncode == 0 and "nobody knows the task 'humming'" in done.stdout
    required = plain(acme, source, tmp_path / "out2", "--require-check")
    assert required.returncode == 9 and not (tmp_path / "out2").exists()


# Cache and order


def test_the_cache_keeps_the_result_of_a_costly_pass_but_not_of_a_failed_one(acme, source, tmp_path):
    for number in range(2):
        assert optimize(acme, source, tmp_path / f"out{number}", "--precision", "loud").returncode == 0
    assert acme.log.read_text() == "shout ran\n"
    assert (tmp_path / "out1" / "model.txt").read_text() == "HELLO -- anonymous"
    first, second = (json.loads((tmp_path / f"out{at}" / "drupe.json").read_text())["timings"] for at in range(2))
    assert [each["name"] for each in first["passes"]] == [each["name"] for each in second["passes"]]
    shouted = {each["name"]: each["from_cache"] for each in second["passes"]}
    assert shouted["shout"] and not any(each["from_cache"] for each in first["passes"])
    (source / "model.txt").write_text("fail")
    for _ in range(2):
        failed = optimize(acme, source, tmp_path / "out2", "--precision", "loud")
        assert failed.returncode == 70
        assert "error: the pass 'shout' of acme 1.0 raised ZeroDivisionError: a mistake in a plugin" in failed.stderr
        assert "Traceback" in failed.stderr and "acme.py" in failed.stderr
    assert acme.log.read_text() == "shout ran\n" * 3
    assert not (tmp_path / "out2").exists()


def test_the_cache_is_not_used_after_an_upgrade_of_the_plugin(acme, source, tmp_path):
    assert optimize(acme, source, tmp_path / "out0", "--precision", "loud").returncode == 0
    (acme.folder / "acme-1.0.dist-info").rename(acme.folder / "acme-1.1.dist-info")
    about = acme.folder / "acme-1.1.dist-info" / "METADATA"
    about.write_text(about.read_text().replace("Version: 1.0", "Version: 1.1"))
    assert optimize(acme, source, tmp_path / "out1", "--precision", "loud").returncode == 0
    assert acme.log.read_text() == "shout ran\n" * 2


def test_a_refusal_of_a_later_pass_is_reported_before_a_costly_pass_runs(acme, source, tmp_path):
    (source / "model.txt").write_text("nameless")
    done = optimize(acme, source, tmp_path / "out", "--precision", "loud")
    assert done.returncode == 3 and "nobody signs that" in done.stderr
    assert not acme.log.exists()
    # The costly pass "capitals" has no preview, so nothing is refused before it runs, and its result can be signed.
    assert optimize(acme, source, tmp_path / "out", "--precision", "secret").returncode == 0
    assert (tmp_path / "out" / "model.txt").read_text() == "NAMELESS -- anonymous"


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(acme, source, tmp_path):
    (tmp_path / "file").write_text("")
    acme.environment["DRUPE_CACHE"] = str(tmp_path / "file" / "cache")
    assert plain(acme, source, tmp_path / "out").returncode == 0


# Interruptions


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as POSIX systems have them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_keeps_the_old_output_and_the_next_run_cleans_up(acme, source, tmp_path, number):
    out = tmp_path / "out"
    assert plain(acme, source, out).returncode == 0
    command = acme.command("optimize", source, "-o", out, "--precision", "plain", "--force", "--log-level", "1")
    environment = {**acme.environ(), "ACME_SLEEP": "30"}
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(".out.drupe-staging-*/model.txt")):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.02)
    running.send_signal(number)
    _, errors = running.communicate(timeout=300)
    assert (out / "model.txt").read_text() == "hello -- anonymous"
    if number == signal.SIGKILL:
        assert leftovers(tmp_path) != []
    else:
        assert running.returncode == 130 and errors.endswith("error: stopped; nothing was published\n")
        assert "run-failed: " in errors
        assert "Traceback" not in errors
        assert leftovers(tmp_path) == []
    assert plain(acme, source, out, "--force").returncode == 0
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("precision", "cure"), [("plain", ""), ("loud", "  try: run it again: it goes on after shout\n")]
)
def test_a_run_that_is_stopped_says_after_which_costly_pass_the_next_run_goes_on(
    acme, source, tmp_path, precision, cure
):
    code = acme.folder / "acme.py"
    whole = code.read_text()
    writing = '        with context.progress.task("writing"'
    # The pass's result is written into the cache first; the run is stopped while the package is written.
    stop = '        if "staging" in folder.name:\n            raise KeyboardInterrupt\n'
    assert writing in whole
    code.write_text(whole.replace(writing, f"{stop}{writing}"))
    stopped = optimize(acme, source, tmp_path / "out", "--precision", precision)
    assert stopped.returncode == 130 and stopped.stderr.endswith(f"error: stopped; nothing was published\n{cure}")
    code.write_text(whole)
    assert optimize(acme, source, tmp_path / "out", "--precision", precision).returncode == 0
    assert acme.log.read_text() == "shout ran\n" if cure else not acme.log.exists()


def test_ctrl_c_while_the_program_is_still_imported_is_one_line(site):
    (site.folder / "typer.py").write_text("raise KeyboardInterrupt")
    done = site.run("--help")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: stopped\n")


def test_the_next_run_restores_an_output_lost_between_two_renames(acme, source, tmp_path):
    out = tmp_path / "out"
    assert plain(acme, source, out).returncode == 0
    out.rename(tmp_path / ".out.drupe-old-0123456789ab")
    refused = plain(acme, source, out)
    assert refused.returncode == 5 and (out / "model.txt").is_file()
    assert leftovers(tmp_path) == []


def test_an_output_with_glob_characters_in_its_name_is_restored_too(acme, source, tmp_path):
    out = tmp_path / "m[1]"
    assert plain(acme, source, out).returncode == 0
    out.rename(tmp_path / ".m[1].drupe-old-0123456789ab")
    assert plain(acme, source, out).returncode == 5
    assert (out / "model.txt").is_file() and leftovers(tmp_path) == []


# Where output goes


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_an_output_folder_without_write_permission_is_an_error(acme, source, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    done = plain(acme, source, locked / "out")
    assert done.returncode == 5 and "no permission" in done.stderr


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc here")
@pytest.mark.parametrize("output", ["/proc/drupe", "/proc/drupe/below"])
def test_an_output_where_the_system_allows_no_folder_is_refused_before_the_work(acme, source, output):
    done = optimize(acme, source, output, "--precision", "loud")
    assert done.returncode == 5 and "the system lets nobody make a folder in /proc" in done.stderr
    assert f"in: {output}" in done.stderr and "try: choose another output" in done.stderr
    assert not acme.log.exists()


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_folder_that_drupe_did_not_make_is_refused_with_a_cure_that_works(acme, source, tmp_path, force):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = plain(acme, source, tmp_path / "mine", *force)
    assert done.returncode == 5 and "choose another output: -o OUT" in done.stderr


def test_a_cache_that_cannot_be_written_is_named_before_a_costly_pass(acme, source, tmp_path):
    (tmp_path / "file").write_text("")
    acme.environment["DRUPE_CACHE"] = str(tmp_path / "file" / "cache")
    done = optimize(acme, source, tmp_path / "out", "--precision", "loud")
    assert done.returncode == 5 and "try: name another folder for the cache: DRUPE_CACHE=<folder>" in done.stderr
    assert "a part of the path is a file" in done.stderr and not acme.log.exists()


def test_a_plan_that_cannot_be_saved_is_an_error_that_names_the_file(acme, source, tmp_path):
    for path, words in ((tmp_path, "it is a folder"), (tmp_path / "no" / "plan.json", "does not exist")):
        done = optimize(acme, source, tmp_path / "out", "--precision", "plain", "--save-plan", path)
        assert done.returncode == 5 and words in done.stderr and str(path) in done.stderr
        assert not (tmp_path / "out").exists()


def test_an_output_below_a_file_is_refused(acme, source, tmp_path):
    done = plain(acme, source, source / "model.txt" / "out")
    assert done.returncode == 5 and "is a file" in done.stderr


def test_folders_made_for_an_output_that_failed_are_removed(acme, source, tmp_path):
    (source / "model.txt").write_text("mute")
    assert plain(acme, source, tmp_path / "new" / "deep" / "out").returncode == 7
    assert not (tmp_path / "new").exists()


# The Python API


def test_the_python_api_opens_a_package(acme, source, tmp_path):
    assert plain(acme, source, tmp_path / "out").returncode == 0
    done = acme.python(f"import drupe; print(drupe.open({str(tmp_path / 'out')!r}).echo('>'))")
    assert done.stdout == "> hello -- anonymous\n", done.stderr


def test_the_python_api_measures_a_package(acme, source, tmp_path):
    assert plain(acme, source, tmp_path / "out").returncode == 0
    call = f"drupe.evaluate({str(tmp_path / 'out')!r}, {str(source)!r})"
    done = acme.python(f"import drupe; print(*((m.name, m.value) for m in {call}))")
    assert done.stdout == "('length', 18) ('longer', 13)\n", done.stderr


def test_the_error_for_an_unknown_reference_names_it(acme, tmp_path):
    done = optimize(acme, tmp_path / "nowhere", tmp_path / "out")
    assert done.returncode == 3 and "nowhere" in done.stderr and "Traceback" not in done.stderr


def test_the_check_runs_no_code_from_the_working_folder(site, source, tmp_path):
    site.add_acme()  # with all that ships with Drupe: its verifier runs the package in another process
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "pluggy.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    command = [sys.executable, "-P", *site.command("optimize", source, "-o", tmp_path / "out")[1:]]
    command += ["--provider", "paper", "--precision", "plain", "--require-check"]
    done = subprocess.run(command, env=site.environ(), cwd=trap, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "sprung").exists()
