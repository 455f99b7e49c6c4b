"""`drupe plugins`: what a third party's plugin brings, and what is wrong with it."""

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
    return [Ref("glass", "faulty:Glass", "a pane of glass"), Ref("tin", "faulty:Tin", "a sheet of tin")]
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
    device_kind = "npu"
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


def test_what_a_third_party_misspells_is_said_when_plugins_are_listed(faulty: Site) -> None:
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


def test_one_plugin_is_shown_with_all_that_it_brings(faulty: Site) -> None:
    shown = json.loads(faulty.run_here("plugins", "faulty", "--json").stdout)
    brought = {record["name"]: record["checked"] for record in shown["brings"]}
    assert set(brought) == {"polish", "wax", "buff", "glass", "tin", "shine", "gloss"}
    assert "did you mean signed?" in brought["polish"] and shown["seconds"] >= 0
    text = faulty.run_here("plugins", "acme").stdout
    assert "--author" in text and "drupe_claim" in text and "ms to say what it brings" in text
    assert "did you mean faulty" in faulty.run_here("plugins", "fautly").stderr


def test_a_shipped_plugin_is_checked_where_it_is_asked_for_and_is_well(site: Site) -> None:
    shown = json.loads(site.run_here("plugins", "drupe-commands", "--json").stdout)
    assert shown["shipped"] and {record["checked"] for record in shown["brings"]} == {"well"}


def test_the_traceback_of_what_failed_can_be_had(site: Site) -> None:
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


def test_what_the_allow_list_leaves_out_is_listed(acme: Site) -> None:
    acme.allow()
    done = acme.run_here("plugins")
    row = next(line for line in done.stdout.splitlines() if line.startswith("acme "))
    assert "not in use: DRUPE_PLUGINS leaves it out" in row
    assert "to mend acme: add acme to DRUPE_PLUGINS" in done.stdout


def test_a_broken_provider_spoils_no_list_of_providers(faulty: Site) -> None:
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
        (("drupe-kernel>=0.1,<0.2", "drupe-onnx>=99"), "it wants drupe-onnx>=99, and 0.1.0 is installed"),
        (("drupe-kernel>=0.1,<0.2", "drupe-nowhere"), "it wants drupe-nowhere, which is not installed"),
        ((), "it states no requirement on drupe-kernel, so that a later kernel may break it"),
    ],
)
def test_what_a_third_party_requires_wrongly_is_said_when_plugins_are_listed(site: Site, requires, note) -> None:
    module = "from drupe.api import hookimpl\n@hookimpl\ndef drupe_passes():\n    return []\n"
    site.add("good", {"good": "good"}, {"good.py": module}, requires=requires)
    assert f"note on good: {note}" in site.run_here("plugins").stdout
    assert f"note: {note}" in site.run_here("plugins", "good").stdout
