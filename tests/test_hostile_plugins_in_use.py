"""Hostile plugins that the user does use: what goes wrong has one error, which names the plugin and not its callers.

Each hostile plugin is installed beside the program's commands and acme, the kernel's example plugin.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sites import CRASHED, Site
from tiny import make_checkpoint

LISTING = """
from drupe.api import Ref, hookimpl
@hookimpl
def drupe_{hook}():
    return [Ref('{name}', 'villain_code:Thing', 'a thing'{more})]
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path / "site")
    site.folder.mkdir()
    site.add_acme()
    site.ship("acme", "drupe-commands", "drupe-verification")
    site.allow("villain")
    return site


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "model.txt").write_text("hello")
    return folder


def admit(site: Site, hook: str, name: str, code: str) -> None:
    """Install a hostile plugin that brings one thing."""
    files = {"villain.py": LISTING.format(hook=hook, name=name, more=""), "villain_code.py": code}
    site.add("villain", {"villain": "villain"}, files)


# Evaluators

EVALUATOR = """
from drupe.api import Evaluator, Metric
class Thing(Evaluator):
    name = "tears"
    summary = "counts tears"
    def evaluate(self, model, reference, config, context):
        {body}
"""
METRICS = {
    "text": ("return [Metric('a', 'high', '', 'lower')]", "whose value is no number"),
    "nothing": ("return [Metric('a', None, '', 'lower')]", "whose value is no number"),
    "a-number-for-a-name": ("return [Metric(1, 1.0, '', 'lower')]", "whose name is no text"),
    "no-unit": ("return [Metric('a', 1.0, None, 'lower')]", "whose unit is no text"),
    "no-direction": ("return [Metric('a', 1.0, '', 'sideways')]", "whose better is neither 'lower' nor 'higher'"),
    "a-spread-of-nan": (
        "return [Metric('a', 1.0, '', 'lower', (float('nan'), 2.0))]",
        "whose spread is no pair of finite numbers",
    ),
    "a-spread-upside-down": ("return [Metric('a', 1.0, '', 'lower', (2.0, 0.5))]", "whose spread is no pair of"),
    "one-number-for-a-spread": ("return [Metric('a', 1.0, '', 'lower', 0.5)]", "whose spread is no pair of"),
    "one-name-twice": ("return [Metric('a', 1.0, '', 'lower')] * 2", "it gave 'a' twice"),
    "late": ("yield Metric('a', 1.0, '', 'lower')\n        1 / 0", "ZeroDivisionError"),
    "exit": ("raise SystemExit(0)", "SystemExit: 0"),
}


@pytest.mark.parametrize("way", METRICS)
def test_a_metric_that_nobody_can_read_is_an_error_of_its_evaluator(site: Site, source: Path, way: str) -> None:
    body, told = METRICS[way]
    admit(site, "evaluators", "tears", EVALUATOR.format(body=body))
    for more in ((), ("--json",)):
        done = site.run_here("evaluate", source, "--provider", "paper", "--evaluator", "tears", *more)
        assert (done.returncode, done.stdout) == (CRASHED, "")
        assert "error: the evaluator 'tears' of villain 1.0 raised " in done.stderr and told in done.stderr


def test_a_metric_may_be_a_number_of_numpy(site: Site, source: Path) -> None:
    body = "import numpy; return [Metric('a', numpy.float32(0.5), '', 'lower')]"
    admit(site, "evaluators", "tears", EVALUATOR.format(body=body))
    done = site.run_here("evaluate", source, "--provider", "paper", "--evaluator", "tears", "--json")
    assert json.loads(done.stdout)["a"] == 0.5


# Readers of other tools' workflow files

READERS = {
    "unknown-key": ("return {'modle': 'x'}, []", "gave a workflow with an unknown key 'modle'; did you mean model?"),
    "no-json": ("return {'model': object()}, []", "gave a workflow that has no form in JSON"),
    "changes-the-file": ("document.clear()", None),
}


@pytest.mark.parametrize("way", READERS)
def test_a_reader_that_fails_leaves_the_file_to_others(site: Site, tmp_path: Path, way: str) -> None:
    body, told = READERS[way]
    admit(site, "workflow_readers", "tear", f"def Thing(document, model):\n    {body}\n")
    file = tmp_path / "job.yaml"
    file.write_text("job: sign\n")
    done = site.run_here("run", file, "--dry-run", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the file is neither a plan nor a workflow: it has the keys job\n" in done.stderr
    assert told is None or f"the workflow reader 'tear' of villain 1.0 {told}" in done.stderr


# Runtimes

RUNTIME = """
from acme import Echo, Paper
from drupe.api import Evaluator, RuntimePackage
class Opens(Evaluator):
    name = "opens"
    summary = "opens the model"
    def evaluate(self, model, reference, config, context):
        with context.open(model):
            return []
class Thing(Echo):
    name = "tore"
    {body}
class Card(Paper):
    name = "card"
    runtime_name = "Card"
    packages = (RuntimePackage("tore", "pip install villain"),)
"""
RUNTIMES = {
    "version": "def version(self):\n        raise {error}",
    "refusal": "def refusal(self, model, target):\n        raise {error}",
    "open": "def open(self, model, target, *, max_length=None, threads=0):\n        raise {error}",
}


def admit_runtime(site: Site, body: str) -> None:
    """Install a hostile plugin with a runtime, a provider that uses it, and an evaluator that opens the model."""
    module = LISTING.format(hook="runtimes", name="tore", more="")
    module += LISTING.format(hook="execution_providers", name="card", more=", device='card'").replace("Thing", "Card")
    module += LISTING.format(hook="evaluators", name="opens", more="").replace("Thing", "Opens")
    files = {"villain.py": module, "villain_code.py": RUNTIME.format(body=body)}
    site.add("villain", {"villain": "villain"}, files)


@pytest.mark.parametrize("error", ["ValueError('out of order')", "SystemExit(0)"])
@pytest.mark.parametrize("method", RUNTIMES)
def test_a_runtime_that_fails_is_named_whoever_uses_it(site: Site, source: Path, method: str, error: str) -> None:
    admit_runtime(site, RUNTIMES[method].format(error=error))
    done = site.run_here("evaluate", source, "--provider", "card", "--evaluator", "opens")
    assert (done.returncode, done.stdout) == (CRASHED, "")
    assert f"error: {method}() of the runtime 'tore' of villain 1.0 raised {error.partition('(')[0]}" in done.stderr


def test_a_package_that_a_runtime_of_a_third_party_fails_on_is_not_published_and_names_it(
    site: Site, source: Path, tmp_path: Path
) -> None:
    admit_runtime(site, "def open(self, model, target, *, max_length=None, threads=0):\n        import os; os._exit(0)")
    out = tmp_path / "out"
    done = site.run("optimize", source, "-o", out, "--provider", "card", "--precision", "plain")
    assert done.returncode == 7 and not out.exists()
    assert "the package fails its check in tore of villain 1.0: exit status 0" in done.stderr
    assert "report it to the makers of villain" in done.stderr


# Commands


def test_a_command_that_closes_standard_output_ends_without_an_error(site: Site) -> None:
    admit(site, "commands", "tear", "import sys\ndef Thing():\n    print('torn')\n    sys.stdout.close()\n")
    done = site.run("tear")
    assert (done.returncode, done.stderr) == (0, "")


# What goes on beside the calls

CHATTERBOX = """
import atexit, threading, time
def chatter():
    for _ in range(200):
        print("torn")
        time.sleep(0.001)
threading.Thread(target=chatter).start()
atexit.register(print, "torn at last")
"""


def test_what_a_plugin_prints_from_a_thread_and_at_the_end_is_not_the_programs(site: Site) -> None:
    admit(site, "tasks", "tearing", "")
    alone = site.run("passes")
    (site.folder / "villain.py").write_text(CHATTERBOX + LISTING.format(hook="tasks", name="tearing", more=""))
    done = site.run("passes")
    assert (done.returncode, done.stdout) == (0, alone.stdout) and "torn at last" in done.stderr
    assert "torn\n" in done.stderr and not [line for line in done.stderr.splitlines() if "warning: drupe-" in line]


# Searchers

WORKFLOW = {"target": {"provider": "paper", "precision": "loud"}}


@pytest.mark.parametrize("body", ["1 / 0", "return document.clear()"])
def test_a_searcher_that_fails_or_changes_the_document_stops_no_workflow(site: Site, source: Path, body: str) -> None:
    admit(site, "searchers", "tears", f"def Thing(document):\n    {body}")
    file = site.folder / "workflow.json"
    file.write_text(json.dumps({"model": str(source), **WORKFLOW}))
    done = site.run_here("run", file, "-o", site.folder / "out")
    assert done.returncode == 0, done.stderr
    assert ("ZeroDivisionError" in done.stderr) == (body == "1 / 0")


def test_a_search_that_nobody_carries_out_is_refused_also_beside_a_searcher_that_finds_none(
    site: Site, source: Path
) -> None:
    admit(site, "searchers", "tears", "def Thing(document):\n    return None")
    file = site.folder / "workflow.json"
    file.write_text(json.dumps({"model": str(source), "search": {}, **WORKFLOW}))
    done = site.run_here("run", file, "-o", site.folder / "out")
    assert done.returncode == 2 and "no installed plugin searches" in done.stderr


# Passes

PASS = """
from pathlib import Path
from drupe.api import Form, Model, Notice, Pass
class Thing(Pass):
    name = "tear"
    summary = "tears a model"
    requires = ensures = Form("{kind}")
    def run(self, model, config, context):
        {body}
"""
RESULTS = {
    "no-model": ("return model.payload", "gave 'hello', which is not a Model"),
    "another-kind": ("return model.but(kind='draft')", "made a model of kind 'draft', which it does not declare"),
    "other-parts": ("return model.but(parts={'low': {}})", "made a model of other parts: low instead of model"),
    "a-fact-of-no-text": ("return model.but(facts={'signed': 1})", "Model has parts = "),
    "a-part-of-no-text": ("return model.but(parts={3: {}})", "Model has parts = {3: "),
    "facts-that-are-a-list": ("return Model('text', model.location, {'model': ['signed']})", "Model has parts = "),
    "an-unknown-fact": ("return model.but(facts={'sigend': 'no'})", "unknown fact 'sigend'; did you mean signed"),
    "an-unknown-value": ("return model.but(facts={'signed': 'yess'})", "unknown value 'yess' of signed; did you mean"),
    "a-location-of-text": ("return model.but(location='x')", "Model has location = 'x'"),
    "a-task-of-no-text": ("return model.but(task=3)", "Model has task = 3"),
    "notices-of-text": ("return model.but(notices=('beware',))", "Model has notices = ('beware',)"),
    "a-notice-of-text": ("return model.noticed('beware')", "Model has notices = ('beware',)"),
    "a-notice-of-nothing": ("return model.noticed(Notice('a', 'b', None))", "Notice has what = None"),
}


def admit_pass(site: Site, kind: str, body: str) -> None:
    admit(site, "passes", "tear", PASS.format(kind=kind, body=body))


@pytest.mark.parametrize("way", RESULTS)
def test_the_error_for_a_result_that_nothing_can_work_with_names_the_pass(
    site: Site, source: Path, tmp_path: Path, way: str
) -> None:
    body, told = RESULTS[way]
    admit_pass(site, "text", body)
    out = tmp_path / "out"
    done = site.run_here("optimize", source, "-o", out, "--provider", "paper", "--passes", "tear,sign")
    assert done.returncode in (8, CRASHED) and not out.exists(), done
    assert "the pass 'tear' of villain 1.0 " in done.stderr.replace("1.0: ", "1.0 ") and told in done.stderr, (
        done.stderr
    )


CONFIG = """
import pydantic
from pathlib import Path
from typing import Any
from drupe.api import Form, Pass, PassConfig
class Config(PassConfig):
    limit: {field}
    @pydantic.field_validator("limit", mode="before")
    @classmethod
    def checked(cls, value):
        {body}
class Thing(Pass):
    name, summary, Config = "tear", "tears a model", Config
    requires = ensures = Form("text")
    def run(self, model, config, context):
        return model
"""
CONFIGS = {
    "exits": ("int = 1", "raise SystemExit(0)", "SystemExit: 0", CRASHED),
    "calls-itself": ("int = 1", "return cls.checked(value)", "RecursionError", CRASHED),
    "has-no-form-in-json": ("Any = object()", "return value", "PydanticSerializationError", CRASHED),
    "makes-no-default": (
        "int = pydantic.Field(default_factory=lambda: 1 / 0)",
        "return 1",
        "ZeroDivisionError",
        CRASHED,
    ),
    "wants-a-value": ("int", "return value", "the pass 'tear' refuses limit: Field required", 2),
}


@pytest.mark.parametrize("way", CONFIGS)
def test_a_configuration_that_cannot_be_made_is_an_error_before_the_work_and_names_the_pass(
    site: Site, source: Path, tmp_path: Path, way: str
) -> None:
    field, body, told, status = CONFIGS[way]
    admit(site, "passes", "tear", CONFIG.format(field=field, body=body))
    given = {"limit": 1} if way in ("exits", "calls-itself") else {}
    typed = [f"--set=tear.{key}={value}" for key, value in given.items()]
    for more in (("--plan",), ("-o", tmp_path / "out")):
        done = site.run_here("optimize", source, "--provider", "paper", "--passes", "tear,sign", *typed, *more)
        assert (done.returncode, done.stdout) == (status, "") and not (tmp_path / "out").exists(), done
        assert told in done.stderr and "'tear'" in done.stderr


def test_a_plugin_that_ends_the_program_where_nobody_looks_is_an_error_of_its_own(site: Site, source: Path) -> None:
    admit(
        site,
        "passes",
        "tear",
        PASS.format(kind="text", body="return model")
        + "    def __getattribute__(self, name):\n        raise SystemExit(0)\n",
    )
    done = site.run_here("optimize", source, "--provider", "paper", "--passes", "tear,sign", "--plan")
    assert (done.returncode, done.stdout) == (CRASHED, "")
    assert "error: villain 1.0 ended the program: SystemExit: 0" in done.stderr


PAYLOADS = {
    "no-package": (
        "return model.but(payload={'model': 1})",
        "has the payload {'model': 1}, which is not an OnnxPackage",
    ),
    "no-dict": ("model.payload.components = None; return model", "has an OnnxPackage with components = None, which is"),
    "no-graph": ("model.payload.components['model'] = None; return model", "has None as the graph of the part 'model'"),
    "another-part": (
        "model.payload.components['more'] = None; return model",
        "has the graphs model, more for",
    ),
    "a-file-of-text": (
        "model.payload.files['a'] = 'text'; return model",
        "has 'text' as the file 'a', which",
    ),
    "a-file-of-no-name": ("model.payload.files[3] = b''; return model", "has a file called 3"),
    "a-file-elsewhere": ("model.payload.files['../a'] = b''; return model", "has a file called '../a'"),
}


@pytest.mark.parametrize("way", PAYLOADS)
def test_the_error_for_a_package_that_nothing_can_work_with_names_the_pass_that_made_it(
    tmp_path: Path, way: str
) -> None:
    body, told = PAYLOADS[way]
    site = Site(tmp_path / "site")
    site.folder.mkdir()
    admit_pass(site, "onnx", body)
    model, out = make_checkpoint(tmp_path / "checkpoint"), tmp_path / "out"
    done = site.run_here("optimize", model, "-o", out, "--passes", "build-decoder,tear,package-genai", "--no-verify")
    assert done.returncode == 8 and not out.exists(), done
    assert f"error: the result of the pass 'tear' of villain 1.0 {told}" in done.stderr
