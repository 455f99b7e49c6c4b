"""`drupe run`: plans, workflow files, and the errors for wrong ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sites import Site

WORKFLOWS = {
    "flow.yaml": """
model: {source}
target: {{provider: paper, precision: plain}}
options: {{author: me}}
output: {out}
""",
    "flow.json": """
{{"model": {{"reference": "{source}"}}, "target": "paper", "passes": ["dip", {{"sign": {{"by": "me"}}}}],
 "output": "{out}"}}
""",
    "flow.toml": """
model = "{source}"
passes = ["sign"]
output = "{out}"
target.provider = "paper"
settings.sign.by = "me"
""",
    "flow": """
# no suffix: JSON, or else YAML
model: {source}
target: paper
passes: [{{name: sign, config: {{by: me}}, parts: [model]}}]
verify: false
output: {out}
""",
}


@pytest.fixture
def plan(acme: Site, source: Path, tmp_path: Path) -> Path:
    """A plan for the source."""
    file = tmp_path / "plan.json"
    asked = ("--provider", "paper", "--precision", "plain", "--author", "me", "--plan", "--save-plan", file)
    assert acme.run_here("optimize", source, *asked).returncode == 0
    return file


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_is_carried_out_in_json_yaml_and_toml(acme: Site, source: Path, tmp_path: Path, name: str) -> None:
    file, out = tmp_path / name, tmp_path / "out"
    file.write_text(WORKFLOWS[name].format(source=source, out=out))
    done = acme.run_here("run", file)
    assert done.returncode == 0, done.stderr
    assert (out / "model.txt").read_text() == "hello -- me"
    assert "not checked" in done.stdout if name == "flow" else "echo runs it" in done.stdout


def test_flags_override_the_workflow_file(acme: Site, source: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "flow.yaml", tmp_path / "other"
    file.write_text(WORKFLOWS["flow.yaml"].format(source=source, out=tmp_path / "out"))
    other.mkdir()
    (other / "model.txt").write_text("bye")
    done = acme.run_here("run", file, "-o", tmp_path / "another", "--model", other)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "another" / "model.txt").read_text() == "bye -- me"
    assert not (tmp_path / "out").exists()
    assert "exists" in acme.run_here("run", file, "-o", tmp_path / "another").stderr
    assert acme.run_here("run", file, "-o", tmp_path / "another", "--force").returncode == 0


def test_paths_in_a_workflow_are_relative_to_the_working_directory(
    acme: Site, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "flow.yaml").write_text(WORKFLOWS["flow.yaml"].format(source="source", out="out"))
    monkeypatch.chdir(tmp_path)
    assert acme.run_here("run", "elsewhere/flow.yaml").returncode == 0
    assert (tmp_path / "out" / "model.txt").is_file()


def test_plan_prints_the_plan_of_a_workflow_and_runs_nothing(acme: Site, source: Path, tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(WORKFLOWS["flow.yaml"].format(source=source, out=tmp_path / "out"))
    told = json.loads(acme.run_here("run", file, "--plan", "--json").stdout)
    assert [each["config"] for each in told["passes"]] == [{"by": "me"}] and told["plan"]["recipe"] == "plain"
    assert not (tmp_path / "out").exists()


def test_the_error_for_a_missing_model_names_the_file_that_names_the_model(
    acme: Site, plan: Path, source: Path, tmp_path: Path
) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(WORKFLOWS["flow.yaml"].format(source=source, out=tmp_path / "out"))
    source.rename(tmp_path / "moved")
    for named in (file, plan):
        done = acme.run_here("run", named, "-o", tmp_path / "out")
        assert done.returncode == 3 and f"in: {named}, at" in done.stderr, done.stderr


def test_a_plan_is_read_from_standard_input(acme: Site, plan: Path, tmp_path: Path) -> None:
    command = acme.command("run", "-", "-o", tmp_path / "out")
    done = subprocess.run(command, env=acme.environ(), input=plan.read_text(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.txt").read_text() == "hello -- me"


def test_a_plan_runs_on_another_model_only_with_model(acme: Site, plan: Path, source: Path, tmp_path: Path) -> None:
    (source / "model.txt").write_text("hello again")
    refused = acme.run_here("run", plan, "-o", tmp_path / "out")
    assert (
        refused.returncode == 4 and "changed since the plan was made" in refused.stderr and str(plan) in refused.stderr
    )
    assert acme.run_here("run", plan, "-o", tmp_path / "out", "--model", source).returncode == 0
    plan.write_text(plan.read_text().replace('"echoing"', '"singing"'))
    done = acme.run_here("run", plan, "-o", tmp_path / "other", "--model", source)
    assert done.returncode != 0 and "made for the task 'singing', but this model is for 'echoing'" in done.stderr
    assert (tmp_path / "out" / "model.txt").read_text() == "hello again -- me"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("bad.json", '{"model": 1,\n "target" 2}', ("not JSON", "line 2, column 11")),
        ("bad.yaml", "model: x\n  target: [a\n", ("not YAML", "line 2, column 9")),
        ("bad.toml", 'model = "x"\ntarget = \n', ("not TOML", "line 2, column 10")),
        ("bad.toml", "model = ", ("not TOML", "line 1")),
        ("bad.yaml", "", ("the file is empty",)),
        ("bad.json", " \n", ("the file is empty",)),
        ("bad.yaml", "- a\n- b\n", ("holds a list",)),
        ("bad.json", '"model"', ("holds a text",)),
        ("bad.yaml", "model: a\nmodel: b\n", ("'model' stands there twice", ":2:1")),
        ("bad.json", '{"model": 1, "model": 2}', ("'model' stands there twice",)),
        ("bad.yaml", "model: !!python/object/apply:os.getcwd []\n", ("not YAML", "line 1, column 8")),
        ("bad.yaml", "? [a, b]\n: c\n", ("not YAML",)),
        ("bad.yaml", "1: 2\n", ("the key 1 is not text",)),
        ("bad.yaml", "colour: red\nweight: 3\n", ("neither a plan nor a workflow", "colour, weight")),
        ("bad.yaml", "modle: SOURCE\n", ("unknown key 'modle'; did you mean model?", "at modle")),
        ("bad.yaml", "model: SOURCE\ntarget: {precison: x}\n", ("did you mean precision?", "at target.precison")),
        ("bad.yaml", "model: SOURCE\ntarget: 5\n", ("5 does not fit", "at target")),
        ("bad.yaml", "model: SOURCE\ntarget: {precision: 4}\n", ("4 does not fit", "at target.precision")),
        ("bad.yaml", "model: SOURCE\nthreads: many\n", ("'many' does not fit", "at threads")),
        ("bad.yaml", "model: SOURCE\npasses: [3]\n", ("3 does not fit: a name or a mapping of keys is", "at passes.0")),
        ("bad.yaml", "model: SOURCE\npasses: sign\n", ("'sign' does not fit: a list is wanted", "at passes")),
        ("bad.yaml", "model: SOURCE\npasses: [{a: {}, b: {}}]\n", ("key 'name' is missing", "each pass an entry")),
        ("bad.yaml", "model: SOURCE\ntarget: null\n", ("null does not fit: a text or a mapping", "at target")),
        ("bad.yaml", "model: SOURCE\ntarget: papr\n", ("unknown provider 'papr'", "at target.provider")),
        ("bad.yaml", "model: SOURCE\npasses: {build-decoder: {}}\n", ("a list is wanted", "at passes")),
        (
            "bad.yaml",
            "model: SOURCE\npasses: [{type: build-decoder, x: 1}]\n",
            ("the key 'name' is missing", "at passes.0"),
        ),
        ("bad.yaml", "model: SOURCE\npasses: [{sign: [1]}]\n", ("at passes.0.config",)),
        ("bad.yaml", "model: SOURCE\npasses: [{name: sign, by: me}]\n", ("unknown key 'by'", "at passes.0.by")),
        ("bad.yaml", "model: SOURCE\npasses: [dip, sgin]\n", ("unknown pass 'sgin'", "at passes.1")),
        ("bad.yaml", "model: SOURCE\npasses: [{sign: {bye: me}}]\n", ("did you mean by?", "at passes.0.bye")),
        ("bad.yaml", "model: SOURCE\npasses: [write]\n", ("takes a model of kind 'draft', not 'text'",)),
        ("bad.yaml", "model: SOURCE\npasses: [sign, sign]\n", ("needs signed = no", "sign > sign")),
        ("bad.yaml", "model: SOURCE\noptions: {auhtor: me}\n", ("did you mean author?", "at options.auhtor")),
        (
            "bad.yaml",
            "model: SOURCE\noptions: {longest: far}\n",
            ("'far' does not fit: a whole number", "at options.longest"),
        ),
        ("bad.yaml", "model: SOURCE\noptions: {volume: lowd}\n", ("did you mean loud?", "at options.volume")),
        ("bad.yaml", "model: {reference: SOURCE, pgae: x}\n", ("did you mean page?", "at model.pgae")),
        ("bad.yaml", "model: SOURCE\nsettings: {sign: {bye: me}}\n", ("did you mean by?", "at settings.sign.bye")),
        ("bad.yaml", "model: SOURCE\npasses: [dip]\nsettings: {dip: {ink: red}}\n", ("at settings.dip.ink",)),
        ("bad.yaml", "model: SOURCE\npasses: [dip]\noptions: {author: me}\n", ("--author has no effect",)),
        ("bad.yaml", "model: SOURCE\nverify: false\nrequire_check: true\n", ("--require-check",)),
        ("bad.yaml", "target: paper\n", ("names no model", "at model")),
    ],
)
def test_a_wrong_workflow_is_one_error_and_nothing_is_written(
    acme: Site, source: Path, tmp_path: Path, name: str, text: str, words: tuple[str, ...]
) -> None:
    file = tmp_path / name
    file.write_text(text.replace("SOURCE", str(source)))
    before = sorted(tmp_path.iterdir())
    done = acme.run_here("run", file, "-o", tmp_path / "out")
    assert done.returncode in (2, 4) and not done.stdout, done
    assert all(word in done.stderr for word in (*words, str(file))), done.stderr
    assert done.stderr.count("error: ") == 1 and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"passes.0.name": "sgin"}, ("unknown pass 'sgin'",)),
        ({"passes.0.cofig": {}}, ("unknown key 'cofig'; did you mean config?", "at passes.0.cofig")),
        ({"passes.0.config.bye": "me"}, ("did you mean by?",)),
        ({"passes.0.config.by": [1]}, ("by = [1]",)),
        ({"passes.0.name": "write", "passes.0.config": {}}, ("takes a model of kind 'draft'",)),
        ({"plugins.acme": "0.9"}, ("made with acme 0.9, but 1.0 is installed",)),
        ({"plugins.gone": "0.9"}, ("made with gone 0.9, but it is not installed",)),
        ({"source.fingerprint": "ab"}, ("changed since the plan was made",)),
        ({"source.kind": "draft"}, ("made for a model of kind 'draft'",)),
        ({"source.task": "singing"}, ("made for the task 'singing', but this model is for 'echoing'",)),
        ({"target.provider": "papre"}, ("did you mean paper?",)),
        ({"target": "paper"}, ("a mapping of keys is wanted", "at target")),
        ({"threads": -1}, ("-1 does not fit: it must be greater", "at threads")),
        ({"version": 7}, ("7 does not fit: it must be 1", "at version")),
    ],
)
def test_a_plan_that_cannot_be_repeated_is_one_error_and_nothing_is_written(
    acme: Site, plan: Path, tmp_path: Path, changes: Mapping[str, Any], words: tuple[str, ...]
) -> None:
    document = json.loads(plan.read_text())
    for place, value in changes.items():
        *parts, last = place.split(".")
        holder: Any = document
        for part in parts:
            holder = holder[int(part) if part.isdigit() else part]
        holder[last] = value
    plan.write_text(json.dumps(document))
    before = sorted(tmp_path.iterdir())
    done = acme.run_here("run", plan, "-o", tmp_path / "out")
    assert done.returncode in (2, 4) and not done.stdout, done
    assert all(word in done.stderr for word in (*words, str(plan))), done.stderr
    assert done.stderr.count("error: ") == 1 and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run",), "no file is named"),
        (("run", "nowhere.yaml", "-o", "out"), "there is no file 'nowhere.yaml'"),
        (("run", ".", "-o", "out"), "that is a folder"),
        (("run", "--schema", "plann"), "did you mean plan?"),
    ],
)
def test_the_error_for_a_missing_file_says_so(acme: Site, arguments: tuple[str, ...], words: str) -> None:
    done = acme.run_here(*arguments)
    assert done.returncode == 2 and words in done.stderr


def test_a_file_that_is_not_text_is_refused(acme: Site, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe\x00")
    done = acme.run_here("run", tmp_path / "plan.json", "-o", tmp_path / "out")
    assert done.returncode == 2 and "not text in UTF-8" in done.stderr


@pytest.mark.parametrize("kind", ["plan", "workflow"])
def test_the_published_schemas_equal_what_the_program_prints(kind: str) -> None:
    published = Path(__file__).resolve().parents[3] / "docs" / f"{kind}.schema.json"
    printed = subprocess.run(
        [sys.executable, "-m", "drupe", "run", "--schema", kind], capture_output=True, text=True, check=True
    ).stdout
    assert published.read_text(encoding="utf-8") == printed, f"drupe run --schema {kind} > docs/{kind}.schema.json"


def test_the_schema_of_a_workflow_accepts_the_short_forms(acme: Site) -> None:
    schema = json.loads(acme.run_here("run", "--schema", "workflow").stdout)
    assert {"type": "string"} in schema["properties"]["model"]["anyOf"]
    assert {"type": "string"} in schema["properties"]["target"]["anyOf"]
    assert {"type": "string"} in schema["properties"]["passes"]["items"]["anyOf"]


def test_a_workflow_sets_keys_of_the_evaluator_and_names_wrong_ones(acme: Site, tmp_path: Path) -> None:
    written = tmp_path / "run.json"
    content = {"model": "anything", "settings": {"quality": {"tokns": 64}}}
    written.write_text(json.dumps(content), encoding="utf-8")
    refused = acme.run_here("run", str(written), "--plan")
    assert refused.returncode == 2
    assert "unknown key 'tokns' of the evaluator 'quality'; did you mean tokens?" in refused.stderr
    assert "at settings.quality.tokns" in refused.stderr
