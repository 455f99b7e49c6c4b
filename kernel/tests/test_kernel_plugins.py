"""Discovery: installed plugins are found, and a broken plugin disables only itself."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

GOOD = """
from drupe.api import Ref, hookimpl
@hookimpl
def drupe_passes():
    return [Ref("tidy", "good:Tidy", "tidies up")]
"""


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name + " "))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("import a_library_that_nobody_has", "No module named 'a_library_that_nobody_has'"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("assert False, 'not today'", "not today"),
        ("from drupe.api import hookimpl\n@hookimpl\ndef drupe_pases():\n    return []", "drupe_pases"),
        ("from drupe.api import hookimpl\n@hookimpl\ndef drupe_passes(colour):\n    return []", "colour"),
        ("from drupe.api import hookimpl\n@hookimpl\ndef drupe_passes():\n    return 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_plugin_that_fails_disables_only_itself(site, module, reason):
    site.add("good", {"good": "good"}, {"good.py": GOOD})
    site.add("bad", {"bad": "bad"}, {"bad.py": module})
    listed = site.run_here("plugins")
    assert listed.returncode == 0
    assert "in use" in row(listed.stdout, "good")
    assert reason in row(listed.stdout, "bad")
    assert row(listed.stdout, "to mend bad:").endswith(", or pip uninstall bad")
    assert "tidies up" in site.run_here("passes").stdout


def test_a_plugin_for_another_kernel_is_not_even_imported(site):
    site.add("future", {"future": "future"}, {"future.py": "raise SystemExit"}, requires=("drupe-kernel>=99",))
    listed = site.run_here("plugins").stdout
    assert "drupe-kernel>=99" in row(listed, "future")
    assert "SystemExit" not in listed


def test_the_cure_of_a_plugin_for_another_kernel_leaves_this_kernel_as_it_is(site):
    site.add("old", {"old": "old"}, {"old.py": GOOD}, requires=("drupe-kernel<0.1",))
    cure = row(site.run_here("plugins").stdout, "to mend old:")
    assert f"'drupe-kernel=={metadata.version('drupe-kernel')}'" in cure and "pip uninstall old" in cure
    assert "<0.1" not in cure


def test_two_plugins_that_claim_one_name_are_an_error_that_names_both(site):
    site.add("good", {"good": "good"}, {"good.py": GOOD})
    site.add("rival", {"rival": "rival"}, {"rival.py": GOOD})
    shown = site.run_here("passes", "tidy")
    assert shown.returncode == 8
    assert "good" in shown.stderr and "rival" in shown.stderr


def test_two_distributions_with_one_plugin_name_leave_the_first_in_use(site):
    site.add("good", {"good": "good"}, {"good.py": GOOD})
    site.add("other", {"good": "other"}, {"other.py": GOOD})
    listed = site.run_here("plugins").stdout
    assert "already brings a plugin called 'good'" in listed
    assert site.run_here("passes").returncode == 0


def test_the_allow_list_leaves_out_what_it_does_not_name(site):
    site.add("good", {"good": "good"}, {"good.py": GOOD})
    site.add_acme()
    site.environment["DRUPE_PLUGINS"] = "acme"
    listed = site.run_here("plugins")
    assert "in use" in row(listed.stdout, "acme")
    assert "not in use: DRUPE_PLUGINS leaves it out" in row(listed.stdout, "good")
    assert "to mend good: add good to DRUPE_PLUGINS" in listed.stdout
    assert listed.stderr == ""
    assert "tidies up" not in site.run_here("passes").stdout


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("acme-npu==1.0", "acme-npu"),  # a version does not belong there
        ("acme-card", "acme-npu"),  # the plugin's name, not the distribution's
        ("acmenpu", "acme-npu"),
        ("zzz", None),
    ],
)
def test_a_name_in_the_allow_list_that_fits_no_distribution_is_reported_with_the_nearest_one(site, typed, meant):
    site.add("acme-npu", {"acme-card": "good"}, {"good.py": GOOD})
    site.environment["DRUPE_PLUGINS"] = typed
    assert site.run_here("--help").stderr.splitlines() == [
        f"warning: DRUPE_PLUGINS names '{typed}', and no installed distribution of that name has a plugin"
        + (f"; did you mean {meant}?" if meant else "")
    ]
    site.environment["DRUPE_PLUGINS"] = "acme_npu"
    assert site.run_here("--help").stderr == ""


LIBRARY = {"middle.py": "import bottom\n"}
UNKNOWN = "install what brings the module 'bottom' (all that good requires is installed)"


@pytest.mark.parametrize(
    ("module", "requires", "told"),
    [
        ("import bottom", (), f"good.py:1); {UNKNOWN}"),
        ("import bottom", ("bottom>=2 ; python_version > '3'",), "good.py:1); pip install 'bottom>=2'"),
        ("import middle", ("middle",), "middle.py:1); pip install 'bottom>=3'"),
        ("import middle", (), f"middle.py:1); {UNKNOWN}"),
        ("from good import part", (), "good.py:1); pip install -U --force-reinstall good"),
        ("from json import jsno", (), "good.py:1); pip install -U good"),
    ],
)
def test_the_cure_of_an_import_that_fails_brings_what_is_missing(site, module, requires, told):
    site.add("middle", {}, LIBRARY, requires=("bottom>=3",))
    site.add("good", {"good": "good"}, {"good.py": module}, requires=("drupe-kernel>=0.1,<0.2", *requires))
    (line,) = site.run_here("--help").stderr.splitlines()
    assert line.endswith(f"{told}, or pip uninstall good")
    later = {"good.py": GOOD.replace("good:Tidy", "tidying:Tidy"), "tidying.py": module.replace("good", "tidying")}
    for name, code in later.items():
        (site.folder / name).write_text(code)
    error = site.run_here("passes", "tidy").stderr
    assert f"  try: {told.partition('; ')[2]}, or pip uninstall good" in error.splitlines()


def test_the_target_of_a_ref_is_imported_only_when_it_is_used(site):
    module = GOOD.replace("good:Tidy", "not_there:Tidy")
    site.add("good", {"good": "good"}, {"good.py": module})
    assert "tidies up" in site.run_here("passes").stdout
    shown = site.run_here("passes", "tidy")
    assert shown.returncode == 8
    assert "the pass 'tidy' of good 1.0 cannot be imported" in shown.stderr
    assert "try: pip install -U --force-reinstall good, or pip uninstall good" in shown.stderr


def test_the_program_has_the_commands_of_plugins(acme):
    assert "Say hello." in acme.run_here("--help").stdout
    assert acme.run_here("greet", "--name", "Drupe").stdout == "hello Drupe\n"


def test_help_looks_for_plugins_again_only_after_an_install_removal_or_change(site, tmp_path, monkeypatch):
    (tmp_path / "quiet").mkdir()
    monkeypatch.chdir(tmp_path / "quiet")  # `python -m` looks here first
    hello = 'Ref("hello", "good:hello", "{}")'
    module = GOOD.replace("drupe_passes", "drupe_commands").replace('Ref("tidy", "good:Tidy", "tidies up")', hello)
    site.environment["DRUPE_CACHE"] = str(site.folder.parent / "cache")
    assert "Says hello." not in site.run("--help").stdout
    site.add("good", {"good": "good"}, {"good.py": module.format("Says hello.")})
    assert "Says hello." in site.run("--help").stdout
    site.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    again = site.run("--help")
    assert "Says hello." in again.stdout and "pluggy" in again.stderr and "drupe.registry" not in again.stderr
    (site.folder / "good.py").write_text(module.format("Greets."))
    assert "Greets." in site.run("--help").stdout
    (site.folder / "good-1.0.dist-info" / "entry_points.txt").unlink()
    (site.folder / "good-1.0.dist-info").rename(site.folder / "removed")
    assert "Greets." not in site.run("--help").stdout


def test_help_looks_for_plugins_every_time_while_one_is_broken(site):
    site.environment["DRUPE_CACHE"] = str(site.folder.parent / "cache")
    site.add("good", {"good": "good"}, {"good.py": "import a_library_that_nobody_has"})
    assert "Says hello." not in site.run_here("--help").stdout
    module = GOOD.replace("drupe_passes", "drupe_commands").replace("tidies up", "Says hello.")
    (site.folder / "good.py").write_text(module)
    assert "Says hello." in site.run_here("--help").stdout


def test_help_works_without_a_home_folder(site):
    done = subprocess.run(
        [sys.executable, "-c", "import pathlib, sys; pathlib.Path.home = lambda: (_ for _ in ()).throw(RuntimeError)\n"
         "import tempfile; tempfile.tempdir = sys.argv.pop()\nfrom drupe_commands.program import main; main()",
         "--help", str(site.folder)],
        env={key: value for key, value in site.environ().items() if key not in ("DRUPE_CACHE", "XDG_CACHE_HOME")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "Commands:" in done.stdout and done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
@pytest.mark.parametrize(("target", "command"), [(">/dev/full", "passes"), (">&-", "passes"), (">&-", "--help")])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_output_that_cannot_be_written_is_one_error_without_a_traceback(site, target, command, unbuffered):
    site.environment["PYTHONUNBUFFERED"] = unbuffered
    line = f"{shlex.join(site.command(command))} {target}"
    done = subprocess.run(["/bin/sh", "-c", line], env=site.environ(), capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr.startswith("error: standard output cannot be written")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "meant"), [(("passes", "sgin"), "sing or sign"), (("optimise",), "optimize"), (("great",), "greet")]
)
def test_the_error_for_an_unknown_name_suggests_the_nearest_one(acme, arguments, meant):
    shown = acme.run_here(*arguments)
    assert shown.returncode == 2
    assert f"did you mean {meant}" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_a_provider_is_found_by_each_of_its_names(acme):
    for name in ("paper", "PaperExecutionProvider", "paperexecutionprovider", "sheet"):
        assert acme.run_here("providers", name).stdout.startswith("paper: a sheet of paper")


@pytest.mark.parametrize(
    ("module", "requires", "reason"),
    [
        (GOOD, ("drupe-kernel (>=",), "InvalidRequirement"),
        (
            "from drupe.api import hookimpl\n@hookimpl\ndef drupe_passes():\n    return ['tidy']",
            (),
            "which is not a Ref",
        ),
    ],
)
def test_a_plugin_with_invalid_metadata_is_listed_with_the_reason_and_affects_no_other(
    acme, source, tmp_path, module, requires, reason
):
    acme.add("odd", {"odd": "odd"}, {"odd.py": module}, requires=requires)
    assert reason in row(acme.run_here("plugins").stdout, "odd")
    done = acme.run_here("optimize", source, "-o", tmp_path / "out", "--provider", "paper", "--precision", "plain")
    assert done.returncode == 0, done.stderr


RIVAL = """
from drupe.api import Ref, hookimpl
@hookimpl
def drupe_execution_providers():
    return [Ref("zzz", "rival_provider:Zzz", "would be every provider", ("paper", "sheet"), "npu")]
"""


def test_a_provider_cannot_take_the_name_of_another_and_a_broken_one_affects_no_other(acme):
    body = "from acme import Paper\nclass Zzz(Paper):\n    name = 'zzz'\n"
    acme.add("rival", {"rival": "rival"}, {"rival.py": RIVAL, "rival_provider.py": body})
    assert acme.run_here("providers", "paper").stdout.startswith("paper:")
    both = acme.run_here("providers", "sheet")
    assert both.returncode == 8 and "acme (acme:Paper) and rival (rival_provider:Zzz)" in both.stderr
    assert "try: name one by its own name: paper or zzz" in both.stderr
    (acme.folder / "rival_provider.py").write_text("import a_library_that_nobody_has")
    listed = acme.run_here("providers")
    assert listed.returncode == 0 and "cannot be used: the provider 'zzz' of rival 1.0 cannot be" in listed.stdout
    assert acme.run_here("providers", "zzz").returncode == 8


def test_an_entry_that_is_no_module_disables_only_its_plugin(site):
    site.add("good", {"good": "good"}, {"good.py": GOOD})
    site.add("odd", {"odd": "no module!"}, {})
    listed = site.run_here("plugins")
    assert "not in use" in row(listed.stdout, "odd")
    assert row(listed.stdout, "good").endswith("in use, with problems")  # what its Ref points at is not there


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("entry_points.txt", b"[drupe.plugins]\nno entry\n"),
        ("entry_points.txt", b"\xff[drupe.plugins]\nbroken = broken\n"),
        ("METADATA", b"\xff\xfeName: broken\n"),
    ],
)
def test_what_is_installed_and_cannot_be_read_is_named_and_the_program_goes_on(site, file, content):
    site.add("good", {"good": "good"}, {"good.py": GOOD})
    site.add("broken", {"broken": "broken"}, {"broken.py": GOOD})
    info = site.folder / "broken-1.0.dist-info"
    (info / file).write_bytes(content)
    for command, shown in ((("passes",), "tidies up"), (("run", "--schema", "plan"), '"passes"')):
        listed = site.run(*command)
        assert listed.returncode == 0 and shown in listed.stdout
        assert f"warning: what is installed as {info} cannot be read: " in listed.stderr


def test_a_second_plugin_with_the_same_name_is_not_even_imported(site):
    site.add("good", {"good": "good"}, {"good.py": GOOD})
    site.add("twin", {"good": "twin"}, {"twin.py": "raise SystemExit"})
    listed = site.run_here("plugins").stdout
    assert "in use" in row(listed, "good") and "SystemExit" not in listed
    assert "tidies up" in site.run_here("passes").stdout


def test_a_module_that_is_registered_twice_is_one_plugin(site):
    site.add("good", {"good": "good"}, {"good.py": GOOD})
    site.add("late", {"late": "good"}, {})
    assert "its module good is the plugin 'good' already" in row(site.run_here("plugins").stdout, "late")


CRASHING = """
from drupe.api import Ref, hookimpl
@hookimpl
def drupe_commands():
    return [Ref("tidy", "tidying:tidy", "tidies up")]
"""


def test_a_command_that_crashes_names_its_plugin(site):
    files = {"good.py": CRASHING, "tidying.py": "import json\ndef tidy():\n    json.loads('{')\n"}
    site.add("good", {"good": "good"}, files)
    done = site.run("tidy")
    assert done.returncode == 70
    assert done.stderr.endswith("This is a mistake in good 1.0, not in what you typed; please report it.\n")


@pytest.mark.parametrize("shape", ["pass", "kind"])
def test_the_traceback_of_a_crash_begins_with_the_plugins_own_code(acme, source, tmp_path, shape):
    code = acme.folder / "acme.py"
    if shape == "kind":
        code.write_text(code.read_text().replace('if "x" in model.payload', "if int('fail')"))
    (source / "model.txt").write_text("fail")
    arguments = ("optimize", source, "-o", tmp_path / "out", "--provider", "paper", "--volume", "loud")
    done = acme.run(*arguments)
    frames = [line for line in done.stderr.splitlines() if line.startswith('  File "')]
    assert done.returncode == 70 and len(frames) == 1 and str(code) in frames[0], done.stderr
    assert "--log-level 2 shows the calls that led there" in done.stderr
    whole = acme.run(*arguments, "--log-level", "2").stderr
    assert "drupe_publishing" in whole and str(code) in whole and "shows the calls" not in whole


def test_a_kind_of_model_that_crashes_names_its_plugin(acme, source, tmp_path):
    code = acme.folder / "acme.py"
    code.write_text(code.read_text().replace('if "x" in model.payload', "if 1 / 0"))
    done = acme.run("optimize", source, "-o", tmp_path / "out", "--provider", "paper", "--precision", "plain")
    assert done.returncode == 70
    assert done.stderr.endswith("This is a mistake in acme 1.0, not in what you typed; please report it.\n")
    assert not (tmp_path / "out").exists()


DECLARING = """
from drupe.api import Ref, hookspec
@hookspec
def drupe_flavours() -> list[Ref]:
    "Flavours."
"""
OFFERING = """
from drupe.api import Ref, hookimpl
@hookimpl
def drupe_flavours():
    return [Ref("plum", "offering:Plum", "tastes of plums")]
"""
LISTING = "from drupe.api import registry; print([entry.ref.name for entry in registry().offered('flavour', HOOK)])"


def test_a_plugin_implements_a_hook_that_another_plugin_declares(site):
    site.add("declaring", {"zzz": "declaring"}, {"declaring.py": DECLARING})  # loaded after the one that implements it
    site.add("offering", {"aaa": "offering"}, {"offering.py": OFFERING})
    assert site.python(LISTING.replace("HOOK", "'drupe_flavours'")).stdout.strip() == "['plum']"
    assert "in use" in row(site.run_here("plugins").stdout, "aaa")


def test_a_hook_whose_declaring_plugin_is_missing_is_unknown(site):
    site.add("offering", {"aaa": "offering"}, {"offering.py": OFFERING})
    assert "unknown hook 'drupe_flavours'" in row(site.run_here("plugins").stdout, "aaa")
    assert site.python(LISTING.replace("HOOK", "'drupe_flavours'")).stdout.strip() == "[]"


def test_an_unknown_hook_of_a_plugin_that_lacks_a_requirement_is_told_with_the_requirement(site):
    site.add("offering", {"aaa": "offering"}, {"offering.py": OFFERING}, requires=("declaring>=1",))
    done = site.run_here("plugins")
    assert "unknown hook 'drupe_flavours'; declaring>=1 is not installed" in done.stdout
    assert "to mend aaa: install declaring>=1, or pip uninstall offering" in done.stdout
    assert "did you mean" not in done.stdout
