"""Flags made from the options that plugins declare."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sites import Site

PLUGIN = """
from pathlib import Path
from drupe.api import Option, hookimpl
@hookimpl
def drupe_options():
    return [
        Option("silu_limit", "Where SiLU ends.", type=float, group="Zeta", default="at ten"),
        Option("mirror", "Mirrors it.", type=bool, off="straight", group="Zeta"),
        Option("colour", "What it is painted with.", choices=("red", "blue"), group="Zeta", multiple=True),
        Option("key", "Opens it.", type=Path, source=True, environment="ZETA_KEY", needs="--mirror"),
        Option("precision", "Is taken.", group="Zeta"),
    ]
"""


@pytest.fixture
def zeta(acme: Site) -> Site:
    """A third party that declares options of every sort. One has the name of a flag of the command."""
    acme.add("zeta", {"zeta": "zeta"}, {"zeta.py": PLUGIN})
    return acme


def sections(text: str) -> dict[str, str]:
    """The sections of the help, by heading."""
    found = re.split(r"^(\S[^\n]*):\n", text, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def test_help_shows_options_of_plugins_under_their_headings_with_choices_and_defaults(zeta: Site) -> None:
    help = sections(zeta.run_here("optimize", "--help").stdout)
    assert "--silu-limit <float>" in help["Zeta"] and "[default: at ten]" in help["Zeta"]
    assert "--mirror / --straight" in help["Zeta"] and "<red|blue>" in help["Zeta"]
    assert "ZETA_KEY" in help["Other options"] and "needs --mirror" in help["Other options"]
    assert "--author" in help["Acme"]
    assert next(iter(help)) == "Model and output" and list(help)[-1] == "Running and printing"
    assert "--trust-remote-code" not in "".join(help.values())


CHOICE = """
from drupe.api import Option, Ref, hookimpl
@hookimpl
def drupe_options():
    return [Option("colour", "green (costs more).", choices=("green",), extends=True)]
@hookimpl
def drupe_passes():
    return [Ref("paint", "paint:Paint", "paints it")]
"""
PAINT = """
from acme import Shout
class Paint(Shout):
    name = "paint"
"""


def test_a_choice_that_another_plugin_adds_is_shown_with_its_help(zeta: Site) -> None:
    zeta.add("eta", {"eta": "eta"}, {"eta.py": CHOICE, "paint.py": PAINT})
    zeta_help = sections(zeta.run_here("optimize", "--help").stdout)["Zeta"]
    assert "<red|blue|green>" in zeta_help and "What it is painted with. green (costs more)." in zeta_help
    assert "--colour green: green (costs more)." in zeta.run_here("passes", "paint").stdout


def test_auto_opt_and_run_pass_have_the_same_options(zeta: Site) -> None:
    for command in ("auto-opt", "run-pass"):
        assert "--silu-limit" in zeta.run_here(command, "--help").stdout


def test_a_plugin_cannot_take_a_flag_that_the_command_has(zeta: Site) -> None:
    done = zeta.run_here("optimize", "--help")
    assert done.stdout.count("--precision <") == 1 and "Is taken" not in done.stdout
    assert "zeta 1.0 cannot have its option --precision" in done.stderr
    assert "drupe optimize has a flag --precision of its own" in zeta.run_here("plugins").stdout


@pytest.mark.parametrize("typed", [("--author", "me"), ("--author=me",), ("--auth_or", "me"), ("--auth_or=me",)])
def test_long_options_can_be_typed_with_underscores_and_an_equals_sign(
    site: Site, source: Path, tmp_path: Path, typed: tuple[str, ...]
) -> None:
    site.add_acme()
    for file in ("acme.py", "acme_plugin.py"):
        path = site.folder / file
        path.write_text(path.read_text().replace('"author"', '"auth_or"'))
    given = [each.replace("--author", "--auth-or") for each in typed]
    done = site.run_here("optimize", source, "-o", tmp_path / "out", "--provider=paper", "--precision=plain", *given)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.txt").read_text() == "hello -- me"


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("--auhtor", "me"), "unknown flag --auhtor; did you mean --author"),
        (("--silu_limt=3",), "unknown flag --silu_limt; did you mean --silu-limit"),
        (("--silu_limit", "much"), "'--silu-limit'"),
        (("--colour", "bleu"), "unknown value 'bleu' of --colour; did you mean blue?"),
        (("--colour", "red", "--colour", "bleu"), "did you mean blue?"),
        (("--qqqqq",), "unknown flag --qqqqq\n"),
        (("--author",), "--author"),
        (("--straight", "--precision", "plain", "--provider", "paper"),
         "--straight has no effect with --precision plain on paper"),
    ],
)  # fmt: skip
def test_errors_name_flags_as_a_user_types_them(
    zeta: Site, source: Path, tmp_path: Path, typed: tuple[str, ...], words: str
) -> None:
    done = zeta.run_here("optimize", source, "-o", tmp_path / "out", *typed)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert done.stderr.count("error: ") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("generate",), "missing argument 'PACKAGE'"),
        (("generate", "out", "a", "b"), "unexpected extra argument"),
        (("generate", "out", "a", "--max_new_token", "4"), "unknown flag --max_new_token; did you mean --max-new-tok"),
        (("generate", "out", "a", "--top-k"), "--top-k"),
        (("generate", "out", "a", "--temperature", "1e9"), "'--temperature': it must be from 0 to 100"),
        (("passes", "--foo"), "unknown flag --foo"),
        (("--foo",), "unknown flag --foo"),
    ],
)
def test_wrong_usage_of_any_command_has_the_same_form_of_error(acme: Site, typed: tuple[str, ...], words: str) -> None:
    done = acme.run_here(*typed)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and words in done.stderr, done.stderr
    command = "drupe --help" if typed == ("--foo",) else f"drupe {typed[0]} --help"
    assert f"try: {command} lists what there is" in done.stderr


def test_help_imports_nothing_heavy(acme: Site) -> None:
    script = """
import sys
sys.argv = ["drupe", "optimize", "--help"]
from drupe_commands.program import main
try:
    main()
finally:
    heavy = {"numpy", "onnx", "onnx_ir", "rich", "pydantic", "yaml", "onnxruntime"} & set(sys.modules)
    print("heavy:", sorted(heavy), file=sys.stderr)
"""
    done = acme.python(script)
    assert "--author" in done.stdout and "heavy: []" in done.stderr
