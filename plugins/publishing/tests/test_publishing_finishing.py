"""Finishers: what they change in a written package, and what is recorded of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sites import Site

PLUGIN = """
from drupe.api import Ref, hookimpl

@hookimpl
def drupe_passes():
    return [Ref("polish", "polishing:Polish", "polishes a text")]

@hookimpl
def drupe_finishers():
    return [Ref("polish", "polishing:finish", "sees how it shines"), Ref("wax", "polishing:wax", "for no pass")]
"""
MODULE = """
from drupe.api import Form, Notice, Pass, PassConfig

class PolishConfig(PassConfig):
    shine: str | None = None

class Polish(Pass):
    name = "polish"
    summary = "polishes a text"
    Config = PolishConfig
    requires = Form("text")
    ensures = Form("text")

    def run(self, model, config, context):
        return model.but(payload=model.payload + (config.shine or ""))

def finish(package, config, run):
    if config.shine is not None:
        return None
    assert not run.job.plan.check.run
    file = package.location / "model.txt"
    file.write_text(file.read_text() + "*")
    return {"shine": "*"}, (Notice("text", "polished", "it shines"),), {"measured": {"shine": 1}}

def wax(package, config, run):
    raise AssertionError("its pass is not in the plan")
"""


def polished(acme: Site) -> Site:
    acme.add("polish", {"polish": "polish_plugin"}, {"polish_plugin.py": PLUGIN, "polishing.py": MODULE})
    acme.ship("acme", "polish", "drupe-commands")
    return acme


def record(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "drupe.json").read_text())
    return read


def test_a_finisher_changes_the_written_package_and_its_choice_is_repeated(
    acme: Site, source: Path, tmp_path: Path
) -> None:
    site = polished(acme)
    done = site.run_here("optimize", source, "-o", tmp_path / "out", "--passes", "polish", "--no-verify")
    assert done.returncode == 0, done.stderr
    assert "note: text, polished: it shines" in done.stderr
    text = (tmp_path / "out" / "model.txt").read_bytes()
    assert text == b"hello*"
    entry = record(tmp_path / "out")["files"]["model.txt"]
    assert entry == {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    (told,) = record(tmp_path / "out")["passes"]
    assert told["config"] == {"shine": "*"} and told["measured"] == {"shine": 1}
    again = site.run_here("run", tmp_path / "out" / "drupe.json", "-o", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / "model.txt").read_bytes() == text and "it shines" not in again.stderr


def test_a_finisher_that_fails_is_named_and_nothing_is_published(acme: Site, source: Path, tmp_path: Path) -> None:
    site = polished(acme)
    (site.folder / "polishing.py").write_text(MODULE.replace("file = package", "1 / 0; file = package"))
    done = site.run_here("optimize", source, "-o", tmp_path / "out", "--passes", "polish", "--no-verify")
    assert done.returncode == 70 and "polish 1.0" in done.stderr and "ZeroDivisionError" in done.stderr
    assert not (tmp_path / "out").exists() and [each.name for each in tmp_path.glob(".out*")] == []
