"""`drupe plugins`: what a third party's plugin brings, and the mistakes in it."""

from __future__ import annotations

import json

import pytest
from sites import Site

PLUGIN = """
from drupe.api import Option, Ref, hookimpl
@hookimpl
def drupe_passes():
    return [Ref("polish", "faulty:Polish", "polishes"), Ref("wax", "faulty:Wax", "waxes"),
            Ref("buff", "faulty:Buf", "buffs")]
@hookimpl
def drupe_execution_providers():
    return [Ref("glass", "faulty:Glass", "a pane of glass", ("GlassExecutionProvider",), "npu"),
            Ref("tin", "faulty:Tin", "a sheet of tin")]
@hookimpl
def drupe_tasks():
    return [Ref("shine", "faulty:Shine", "shines")]
@hookimpl
def drupe_evaluators():
    return [Ref("gloss", "faulty:Gloss", "how much it shines")]
"""
FAULTY = """
from drupe.api import *

class Polish(Pass):
    name = "polish"
    summary = "polishes"
    requires = Form("text", {"sigend": "no"})
    ensures = Form("txet")
    def run(self, model, config, context):
        return model

class Wax(Pass):
    name = "wax"
    summary = "waxes"
    requires = ensures = Form("text")

class Glass(ExecutionProvider):
    name = "glass"
    summary = "a pane of glass"
    runtime_name = "GlassExecutionProvider"
    packages = (RuntimePackage("echo", "pip install faulty"),)
    reference_precision = "fp23"
    def recipes(self):
        stages = (Stage("import"), Step("shoot"), Step("sign", {"bye": "me"}, {"by": "auhtor"}))
        return [Recipe("glass-int4", "int4", stages)]
    def devices(self):
        return []

class Tin(Glass):
    name = "tin"
    packages = (RuntimePackage("ehco", "pip install faulty"),)

class Shine(Task):
    name = "shine"
    summary = "shines"
    evaluator = "glos"
    def samples(self, model, target, seed=0):
        return {}
    def check(self, session, model):
        return ""

class Gloss(Evaluator):
    name = "gloss"
    summary = "how much it shines"
    options = {"limti": "longset"}
    def evaluate(self, model, reference, config, context):
        return []
"""
WRONG = {
    "pass 'polish'": ("unknown fact 'sigend'", "did you mean signed?"),
    "pass 'wax'": ("run",),
    "pass 'buff'": ("has no attribute 'Buf'",),
    "provider 'glass'": ("no plugin brings the pass 'shoot'; did you mean 'shout'?",),
    "provider 'tin'": ("unknown runtime 'ehco'", "did you mean echo?"),
    "task 'shine'": ("no plugin brings its evaluator 'glos'; did you mean 'gloss'?",),
    "evaluator 'gloss'": ("no key 'limti'",),
}


@pytest.fixture
def faulty(acme: Site) -> Site:
    acme.add("faulty", {"faulty": "faulty_plugin"}, {"faulty.py": FAULTY, "faulty_plugin.py": PLUGIN})
    return acme


def test_listing_plugins_reports_misspelt_names_in_third_party_plugins(faulty: Site) -> None:
    done = faulty.run_here("plugins")
    assert done.returncode == 0
    notes = [line for line in done.stdout.splitlines() if line.startswith("note on faulty: ")]
    for what, words in WRONG.items():
        told = [note for note in notes if what in note]
        assert told and all(any(word in note for note in told) for word in words), (what, notes)
    glass = [note for note in notes if "'glass'" in note]
    for word in ("reference_precision is 'fp23'", "no key 'bye'; did you mean 'by'?", "option 'auhtor'; did you mean"):
        assert any(word in note for note in glass), glass
    listed = {record["name"]: record for record in json.loads(faulty.run_here("plugins", "--json").stdout)}
    assert len(listed["faulty"]["notes"]) == len(notes) and not listed["commands"]["notes"]


def test_showing_a_plugin_lists_all_that_it_brings(faulty: Site) -> None:
    shown = json.loads(faulty.run_here("plugins", "faulty", "--json").stdout)
    brought = {record["name"]: record["checked"] for record in shown["brings"]}
    assert set(brought) == {"polish", "wax", "buff", "glass", "tin", "shine", "gloss"}
    assert "did you mean signed?" in brought["polish"] and shown["seconds"] >= 0
    text = faulty.run_here("plugins", "acme").stdout
    assert "--author" in text and "drupe_claim" in text and "ms to say what it brings" in text
    assert "did you mean faulty" in faulty.run_here("plugins", "fautly").stderr


def test_showing_a_shipped_plugin_checks_it_and_finds_no_mistakes(site: Site) -> None:
    shown = json.loads(site.run_here("plugins", "drupe-commands", "--json").stdout)
    assert shown["shipped"] and {record["checked"] for record in shown["brings"]} == {"well"}


def test_traceback_shows_the_traceback_of_a_failed_plugin(site: Site) -> None:
    site.add("bad", {"bad": "bad"}, {"bad.py": "import a_library_that_nobody_has"})
    site.add(
        "late",
        {"late": "late"},
        {"late.py": "from drupe.api import hookimpl\n@hookimpl\ndef drupe_passes():\n    1 / 0"},
    )
    assert "drupe plugins bad --traceback" in site.run_here("plugins", "bad").stdout
    for name, words in (("bad", "import a_library_that_nobody_has"), ("late", "ZeroDivisionError")):
        shown = site.run_here("plugins", name, "--traceback")
        assert shown.returncode == 0 and words in shown.stdout and "Traceback" in shown.stdout
    refused = site.run_here("plugins", "commands", "--traceback")
    assert refused.returncode == 2 and "it is in use" in refused.stderr


def test_plugins_left_out_by_the_allow_list_are_listed(acme: Site) -> None:
    acme.allow()
    done = acme.run_here("plugins")
    row = next(line for line in done.stdout.splitlines() if line.startswith("acme "))
    assert "not in use: DRUPE_PLUGINS leaves it out" in row
    assert "to mend acme: add acme to DRUPE_PLUGINS" in done.stdout


def test_a_broken_provider_does_not_break_the_list_of_providers(faulty: Site) -> None:
    faulty.add(
        "rusty",
        {"rusty": "rusty_plugin"},
        {
            "rusty.py": "from faulty import Glass\nclass Rusty(Glass):\n    name = 'rusty'\n"
            "    def devices(self):\n        raise SystemExit(3)\n",
            "rusty_plugin.py": "from drupe.api import Ref, hookimpl\n@hookimpl\ndef drupe_execution_providers():\n"
            "    return [Ref('rusty', 'rusty:Rusty', 'rust')]\n",
        },
    )
    done = faulty.run_here("providers")
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "A4" in rows["paper"] and "not here" in rows["glass"]
    assert "cannot be used" in rows["tin"] and "cannot be used" in rows["rusty"] and "SystemExit" in rows["rusty"]
    assert faulty.run_here("providers", "paper").returncode == 0
    assert faulty.run_here("runtimes", "echo").returncode == 0


@pytest.mark.parametrize(
    ("requires", "note"),
    [
        (("drupe-kernel>=0.1,<0.2", "drupe-onnx>=99"), "it needs drupe-onnx>=99, and 0.1.0 is installed"),
        (("drupe-kernel>=0.1,<0.2", "drupe-nowhere"), "it needs drupe-nowhere, which is not installed"),
        ((), "it states no requirement on drupe-kernel, so that a later kernel may break it"),
    ],
)
def test_listing_plugins_reports_wrong_requirements_of_third_parties(site: Site, requires, note) -> None:
    module = "from drupe.api import hookimpl\n@hookimpl\ndef drupe_passes():\n    return []\n"
    site.add("good", {"good": "good"}, {"good.py": module}, requires=requires)
    assert f"note on good: {note}" in site.run_here("plugins").stdout
    assert f"note: {note}" in site.run_here("plugins", "good").stdout


TWIN = """
from drupe.api import Ref, hookimpl
@hookimpl
def drupe_passes():
    return [Ref("polish", "faulty:Wax", "polishes as well")]
"""


def test_two_third_parties_that_bring_one_name_are_told_of_each_other(faulty: Site) -> None:
    faulty.add("twin", {"twin": "twin"}, {"twin.py": TWIN})
    listed = faulty.run_here("plugins")
    told = "cannot have the name 'polish' for its pass: faulty claims it as well"
    assert f"warning: twin 1.0 {told}" in listed.stderr.splitlines()
    assert f"note on twin: {told}" in listed.stdout.splitlines()
    (note,) = [line for line in listed.stdout.splitlines() if "that is called polish as well" in line]
    assert note.startswith("note on faulty: ") and "twin 1.0 brings a pass" in note
    assert "try: pip uninstall faulty or pip uninstall twin" in faulty.run_here("passes", "polish").stderr


@pytest.mark.parametrize(
    ("also", "told", "status"),
    [
        (("Window",), "cannot have the name 'window' for its provider: faulty claims it as well", 8),
        (("glass",), "cannot have the name 'glass' for its provider: faulty brings one of that name", 0),
        (("sheet",), "cannot have the name 'sheet' for its provider: acme brings one of that name", 0),
    ],
)
def test_a_second_name_that_another_plugin_has_is_reported_and_the_own_names_work(
    faulty: Site, also: tuple[str, ...], told: str, status: int
) -> None:
    plugin = faulty.folder / "faulty_plugin.py"
    plugin.write_text(plugin.read_text().replace('("GlassExecutionProvider",)', '("GlassExecutionProvider", "window")'))
    code = "from faulty import Glass\nclass Pane(Glass):\n    name = 'pane'\n"
    listing = TWIN.replace("drupe_passes", "drupe_execution_providers").replace(
        'Ref("polish", "faulty:Wax", "polishes as well")', f"Ref('pane', 'pane:Pane', 'a pane', also={also})"
    )
    faulty.add("pane", {"pane": "pane_plugin"}, {"pane_plugin.py": listing, "pane.py": code})
    faulty.ship("drupe-commands", "acme")
    faulty.allow("faulty", "pane")
    shown = faulty.run_here("providers", also[0])
    assert shown.returncode == status and f"warning: pane 1.0 {told}" in shown.stderr
    if status:
        assert "try: name one by its own name: glass or pane" in shown.stderr
    for name in ("glass", "pane"):
        assert faulty.run_here("providers", name).returncode == 0


@pytest.mark.parametrize(
    ("thing", "line", "told"),
    [
        (
            "Polish",
            "options = {'by': 'author'}",
            "its attribute 'options' has no effect: Evaluator has it, and Pass does",
        ),
        ("Polish", "opitons = {'by': 'author'}", ""),
        ("Polish", "libaries = ('numpy',)", "Pass has no attribute 'libaries'; did you mean 'libraries'?"),
        ("Polish", "def desribe(self, model):\n        return {}", "no attribute 'desribe'; did you mean 'describe'?"),
        ("Polish", "def runs(self):\n        return 0", ""),
        ("Tin", "def runtime_option(self):\n        return {}", "'runtime_option'; did you mean 'runtime_options'?"),
        ("Shine", "offer: dict = {}", "Task has no attribute 'offer'; did you mean 'offers'?"),
        ("Gloss", "verifing = {}", "Evaluator has no attribute 'verifing'; did you mean 'verifying'?"),
    ],
)
def test_listing_plugins_reports_attributes_that_nothing_reads(acme: Site, thing: str, line: str, told: str) -> None:
    code = FAULTY.replace("sigend", "signed").replace("txet", "text").replace("ehco", "echo")
    head, found, rest = code.partition(f"class {thing}(")
    named, _, body = rest.partition("\n")
    faulty = f"{head}{found}{named}\n    {line}\n{body}"
    acme.add("faulty", {"faulty": "faulty_plugin"}, {"faulty.py": faulty, "faulty_plugin.py": PLUGIN})
    notes = [each for each in acme.run_here("plugins").stdout.splitlines() if f" '{thing.lower()}'" in each]
    assert any(told in note for note in notes) if told else not any("attribute" in note for note in notes), notes


def test_the_state_of_a_plugin_tells_that_a_part_of_it_cannot_be_used(faulty: Site) -> None:
    rows = {line.split()[0]: line for line in faulty.run_here("plugins").stdout.splitlines() if line.strip()}
    assert rows["faulty"].endswith("in use, with problems")
    assert rows["commands"].endswith("in use")


def test_an_error_in_looking_for_devices_names_the_provider_and_its_line(faulty: Site) -> None:
    code = faulty.folder / "faulty.py"
    code.write_text(code.read_text().replace("return []\n\nclass Tin", "raise ValueError('no bus')\n\nclass Tin"))
    line = next(n for n, text in enumerate(code.read_text().splitlines(), 1) if "no bus" in text)
    told = f"raised ValueError: no bus ({code}:{line})"
    assert f"provider 'glass': {told}" in faulty.run_here("plugins").stdout
    assert f"the provider 'glass' of faulty 1.0 {told}" in faulty.run_here("providers").stdout
