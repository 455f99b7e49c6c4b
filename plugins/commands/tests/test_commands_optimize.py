"""`drupe optimize` and `drupe run-pass`: arguments that they refuse, plans, and what they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sites import Site

PAPER = ("--provider", "paper")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("optimize", "-o", "out"), "no model is named"),
        (("auto-opt", "one", "-m", "two", "-o", "out", "--precision", "int4"), "two models are named"),
        (("optimize", "model"), "no output folder is named"),
        (("optimize", "model", "-o", "out", "--device", "toaster"), "toaster"),
        (("optimize", "model", "-o", "out", "--provider", "cpu", "--device", "gpu"), "--device gpu"),
        (("optimize", "model", "-o", "out", "--set", "block_size=64"), "--set takes PASS.KEY=VALUE"),
        (("optimize", "model", "-o", "out", "--threads", "1000"), "threads = 1000"),
        (("optimize", "model", "-o", "out", "--passes="), "--passes is empty"),
        (("optimize", "model", "-o", "out", "--provider", ""), "--provider is empty"),
        (("optimize", "model", "-o", ""), "-o is empty"),
        (("optimize", "model", "--output_path="), "--output_path is empty"),
        (("optimize", "model", "-o", "out", "--passes", "sign,,dip"), "--passes 'sign,,dip' leaves a name out"),
        (("run-pass", "sign", "model", "-o", "out", "--set", "by"), "--set takes KEY=VALUE"),
        (("run-pass", "sign", "model", "-o", "out", "--set", "dip.ink=red"), "--set dip.ink is for the pass 'dip'"),
    ],
)
def test_invalid_arguments_are_one_error_before_any_work(acme: Site, arguments: tuple[str, ...], words: str) -> None:
    done = acme.run_here(*arguments)
    assert done.returncode not in (0, 70) and words in done.stderr, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("error: ") == 1


def test_sizes_that_differ_little_are_called_as_large_as_the_source() -> None:
    from drupe_commands.summing_up import compared

    assert compared(100, 101) == compared(101, 100) == ", as large as its source"
    assert compared(100, 280) == ", 2.8 times smaller than its source"


def test_the_summary_shows_the_sample_text_in_one_short_line(acme: Site, source: Path, tmp_path: Path) -> None:
    (source / "model.txt").write_text("word\n" * 100)
    done = acme.run("optimize", source, "-o", tmp_path / "out", *PAPER, "--precision", "plain")
    assert done.returncode == 0, done.stderr
    at = next(at for at, line in enumerate(done.stdout.splitlines()) if "echo runs it" in line)
    assert done.stdout.splitlines()[at + 1] == "  " + ("hello" + " word" * 100)[:80] + "..."


def test_the_help_of_auto_opt_says_that_it_is_for_users_of_olive(acme: Site) -> None:
    text = acme.run_here("auto-opt", "--help").stdout
    assert "Olive" in text and "underscores" in text and "--model-name-or-path" in text


def test_passes_and_their_keys_can_be_set_on_the_command_line(acme: Site, source: Path, tmp_path: Path) -> None:
    done = acme.run_here(
        "optimize", source, "-o", tmp_path / "out", *PAPER, "--passes", "dip,sign", "--set", 'sign.by="a b"',
        "--set", "dip.ink=black",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.txt").read_text() == "hello -- a b"
    record = json.loads((tmp_path / "out" / "drupe.json").read_text())
    assert [each["name"] for each in record["passes"]] == ["dip", "sign"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--passes", "dip,sgin"), "or sign"),
        (("--passes", "sign", "--set", "sgin.by=me"), "did you mean sign"),
        (("--passes", "sign", "--set", "sign.bye=me"), "did you mean by"),
        (("--passes", "dip", "--set", "dip.ink=red"), "--set dip.ink"),
        (("--passes", "sign", "--exporter", "writer"), "stage 'import'"),
        (("--precision", "loud", "--author", "me"), "--author has no effect with --precision loud on paper"),
        (("--precision", "plain", "--volume", "loud"), "--volume has no effect with --precision plain on paper"),
        (("--precision", "plain", "--no-verify", "--longest", "9"), "--longest has no effect with --no-verify"),
        (
            (
                "--precision",
                "plane",
            ),
            "plain",
        ),
    ],
)
def test_passes_that_do_not_fit_are_refused_and_nothing_is_written(
    acme: Site, source: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = acme.run_here("optimize", source, "-o", tmp_path / "out", *PAPER, *arguments)
    assert done.returncode in (2, 4) and words in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("setting", ["by=me", "sign.by=me"])
def test_run_pass_runs_one_pass_with_the_options_that_set_its_keys(
    acme: Site, source: Path, tmp_path: Path, setting: str
) -> None:
    out = tmp_path / "out"
    done = acme.run_here("run-pass", "sign", source, "-o", out, *PAPER, "--set", setting)
    assert done.returncode == 0 and "not checked: no check was asked for" in done.stdout
    assert (out / "model.txt").read_text() == "hello -- me"
    again = acme.run_here(
        "run-pass", "sign", source, "-o", out, "--force", *PAPER, "--precision", "plain", "--author", "you"
    )
    assert again.returncode == 0, again.stderr
    assert (out / "model.txt").read_text() == "hello -- you"
    refused = acme.run_here("run-pass", "shout", source, "-o", tmp_path / "other", *PAPER, "--author", "you")
    assert "--author has no effect here: no pass of the plan reads it (shout)" in refused.stderr


def test_save_plan_writes_the_same_plan_with_and_without_a_run(acme: Site, source: Path, tmp_path: Path) -> None:
    before, after, out = tmp_path / "before.json", tmp_path / "after.json", tmp_path / "out"
    asked = ("optimize", source, *PAPER, "--precision", "plain", "--author", "me")
    assert acme.run_here(*asked, "--plan", "--save-plan", before).returncode == 0
    assert not out.exists()
    assert acme.run_here(*asked, "-o", out, "--save-plan", after).returncode == 0
    recorded = json.loads((out / "drupe.json").read_text())["plan"]
    assert json.loads(before.read_text()) == json.loads(after.read_text()) == recorded
    assert recorded["source"]["fingerprint"] and recorded["threads"] > 0
    nowhere = acme.run_here(*asked, "-o", tmp_path / "other", "--save-plan", tmp_path / "no" / "folder.json")
    assert nowhere.returncode == 5 and not (tmp_path / "other").exists()


def test_plan_with_json_prints_a_valid_plan(acme: Site, source: Path, tmp_path: Path) -> None:
    done = acme.run_here("optimize", source, *PAPER, "--precision", "loud", "--plan", "--json")
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["recipe"] == "loud" and told["provider"] == "paper" and told["measures"] == ["shout"]
    assert [each["name"] for each in told["passes"]] == ["shout", "sign"]
    assert told["passes"][1]["config"] == {"by": "anonymous"}
    (tmp_path / "plan.json").write_text(done.stdout)
    assert acme.run_here("run", tmp_path / "plan.json", "-o", tmp_path / "out").returncode == 0
    assert (tmp_path / "out" / "model.txt").read_text() == "HELLO -- anonymous"


def test_no_size_is_stated_for_a_plan_with_a_costly_pass_without_a_preview(acme: Site, source: Path) -> None:
    asked = ("optimize", source, *PAPER, "--passes", "capitals,sign", "--plan")
    shown = acme.run_here(*asked).stdout
    assert "only its work shows what capitals makes" in shown and "writes" not in shown
    told = json.loads(acme.run_here(*asked, "--json").stdout)
    assert told["estimate"] is None and told["unforeseen"] == "capitals"


def test_more_threads_than_the_machine_has_are_accepted_with_a_note(acme: Site, source: Path, tmp_path: Path) -> None:
    asked = ("optimize", source, "-o", tmp_path / "out", *PAPER, "--precision", "plain")
    done = acme.run_here(*asked, "--threads", "256")
    assert done.returncode == 0 and "note: the package takes 256 threads" in done.stderr
    assert "note:" not in acme.run_here(*asked, "--force", "--threads", "1").stderr


def test_the_summary_shows_the_first_metrics_and_counts_the_others() -> None:
    from drupe.api import Check
    from drupe_commands.summing_up import _comparison

    told = _comparison(Check(metrics={f"same_shape:{each}": 1.0 for each in range(9)}))
    assert told.startswith("same shape:0 1, same shape:1 1, ") and told.endswith(", and 5 more in drupe.json")


def test_the_plan_names_third_parties_that_placed_or_changed_passes(acme: Site, source: Path) -> None:
    asked = ("optimize", source, *PAPER, "--plan", "--precision", "int4", "--volume", "loud", "--postscript", "ps")
    stranger = acme.run_here(*asked)
    assert "acme placed shout" in stranger.stdout and "acme added or changed sign" in stranger.stdout
    acme.ship("drupe-commands", "acme")
    shipped = acme.run_here(*asked)
    assert "shout" in shipped.stdout and "placed" not in shipped.stdout and "added" not in shipped.stdout


def test_the_estimated_time_excludes_costly_passes_and_says_what_their_time_grows_with() -> None:
    from types import SimpleNamespace

    from drupe_commands.previewing import _time

    def step(name: str, costly: bool, grows_with: str = "") -> SimpleNamespace:
        return SimpleNamespace(
            planned=SimpleNamespace(name=name), runner=SimpleNamespace(costly=costly, grows_with=grows_with)
        )

    def told(*steps: SimpleNamespace) -> str:
        preview: Any = SimpleNamespace(run=SimpleNamespace(passes=steps), estimate=None, threads=2)
        return _time(preview)

    assert told(step("sign", False)) == "takes about 0 s with 2 threads"
    assert told(step("shout", True)) == "takes about 0 s with 2 threads, not counting shout"
    assert told(step("weigh", True, "the amount of text")).endswith(
        "not counting weigh, whose time grows with the amount of text"
    )


def test_the_plan_says_if_the_disk_is_too_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from types import SimpleNamespace

    from drupe.api import Estimate
    from drupe_commands.previewing import _print_estimate, free_bytes

    estimate = Estimate(output_bytes=100, read_bytes=1, weights_held_bytes=1, work=0)
    preview: Any = SimpleNamespace(run=SimpleNamespace(passes=()), estimate=estimate, threads=1)
    _print_estimate(preview, 99)
    assert "would not fit" in capsys.readouterr().out
    _print_estimate(preview, free_bytes(tmp_path / "not" / "yet"))
    assert "would not fit" not in capsys.readouterr().out


def test_the_summary_says_what_was_checked_compared_or_left_unchecked(acme: Site, source: Path, tmp_path: Path) -> None:
    duet = tmp_path / "duet"
    duet.mkdir()
    (duet / "low.txt").write_text("la")
    (duet / "high.txt").write_text("li")
    asked = ("optimize", duet, *PAPER, "--precision", "bound")
    done = acme.run_here(*asked, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "not run here: no installed plugin knows the task 'singing'" in done.stdout
    refused = acme.run_here(*asked, "-o", tmp_path / "other", "--require-check")
    assert refused.returncode == 9 and not (tmp_path / "other").exists()
    checked = acme.run_here("optimize", source, *PAPER, "--precision", "plain", "-o", tmp_path / "text")
    assert "echo runs it" in checked.stdout and "compared with its source: length 18 characters" in checked.stdout


def test_each_notice_is_a_note_on_standard_error_or_a_part_of_the_document(
    acme: Site, source: Path, tmp_path: Path
) -> None:
    code = acme.folder / "acme.py"
    noticed = ".noticed(Notice('signature', 'added', 'it can be read', 'leave it out'))"
    signed = 'return model.but(payload=f"{model.payload} -- {config.by}")'
    assert signed in code.read_text()
    code.write_text(
        code.read_text().replace(signed, signed + noticed).replace("    Metric,\n", "    Metric,\n    Notice,\n")
    )
    asked = ("optimize", source, *PAPER, "--precision", "plain", "-o", tmp_path / "out")
    for arguments in (asked, (*asked, "--plan"), ("inspect", tmp_path / "out")):
        done = acme.run_here(*arguments)
        lines = done.stderr.splitlines()
        at = lines.index("note: signature, added: it can be read")
        assert lines[at + 1] == "  leave it out", arguments
        assert done.stdout and "note:" not in done.stdout, arguments
        done = acme.run_here(*arguments, "--json", *(("--force",) if arguments == asked else ()))
        (notice,) = json.loads(done.stdout)["notices"]
        assert (notice["about"], notice["cure"]) == ("signature", "leave it out")
        assert "note:" not in done.stderr, arguments


def test_a_notice_of_a_finished_package_names_the_package() -> None:
    from drupe.api import Notice
    from drupe_commands.summing_up import _named

    notice = Notice("session", "portable", "nothing was measured", "drupe tune-session OUT; drupe run FILE -o OUT")
    assert _named(notice, "OC4").cure == "drupe tune-session OC4; drupe run FILE -o OUT"
