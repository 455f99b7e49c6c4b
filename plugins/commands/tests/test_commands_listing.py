"""The listing commands print what is installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from clocks import TAKES, install_clock
from sites import Site
from tiny import make_checkpoint


def program(*arguments: object, status: int = 0) -> str:
    """What the program prints on standard output, after making sure that it ends with this status."""
    command = [sys.executable, "-m", "drupe", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout


def test_every_default_plugin_is_in_use() -> None:
    rows = program("plugins").splitlines()
    assert len(rows) > 10
    assert all(row.rstrip().endswith("in use") for row in rows[1:])
    assert all(record["in_use"] and record["cure"] is None for record in json.loads(program("plugins", "--json")))


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("passes", "sign"),
        ("providers", "paper"),
        ("evaluators", "length"),
        ("tasks", "echoing"),
        ("runtimes", "echo"),
    ],
)
def test_each_listed_name_can_be_shown_in_detail(acme: Site, command: str, name: str) -> None:
    assert any(row.startswith(f"{name} ") for row in acme.run_here(command).stdout.splitlines())
    assert acme.run_here(command, name).stdout.startswith(f"{name}: ")
    assert any(name in record.values() for record in json.loads(acme.run_here(command, "--json").stdout))
    shown = json.loads(acme.run_here(command, name, "--json").stdout)
    assert shown["name"] == name and shown["brought_by"] == "acme 1.0"
    assert acme.run_here(command, f"{name}s").returncode == 2


def test_a_pass_shows_the_options_that_set_its_keys(acme: Site) -> None:
    shown = json.loads(acme.run_here("passes", "sign", "--json").stdout)
    assert shown["configuration"] == [
        {"key": "by", "type": "str", "default": "anonymous", "set_by": "--author", "meaning": ""}
    ]
    assert shown["takes"] == "text (signed = no)" and shown["gives"] == "text (signed = yes)"


SLOW = """
from drupe.api import Ref, hookimpl
@hookimpl
def drupe_execution_providers():
    return [Ref("slow", "slow_provider:Slow", "takes its time", ("SlowExecutionProvider",), "npu")]
"""
PROVIDER = """
{importing}
from acme import Paper
class Slow(Paper):
    name = "slow"
    runtime_name = "SlowExecutionProvider"
    def devices(self):
        {looking}
        return []
"""


@pytest.mark.parametrize(
    ("importing", "looking", "doing"),
    [(1.6, 0, "import its provider 'slow'"), (0, 1.6, "look for the devices of its provider 'slow'")],
)
def test_a_provider_that_is_slow_is_named_and_asked_only_where_it_is_needed(
    acme: Site, monkeypatch: pytest.MonkeyPatch, importing: float, looking: float, doing: str
) -> None:
    install_clock(monkeypatch)
    code = PROVIDER.format(importing=TAKES.format(importing), looking=TAKES.format(looking))
    acme.add("slow", {"slow": "slow"}, {"slow.py": SLOW, "slow_provider.py": code})
    acme.ship("drupe-commands", "acme")
    acme.allow("slow")
    for needed in (("providers",), ("providers", "slow")):
        (warning,) = acme.run_here(*needed).stderr.splitlines()
        assert re.fullmatch(rf"warning: slow 1\.0 took 1\.6 s to {doing}", warning)
    for other in (("passes", "sign"), ("passes",), ("providers", "paper"), ("evaluators", "length"), ("runtimes",)):
        assert acme.run_here(*other).stderr == "", other


@pytest.mark.parametrize("kind", ["passes", "tasks", "evaluators", "runtimes", "execution_providers"])
def test_showing_one_thing_imports_nothing_else_of_its_plugin_and_of_others(acme: Site, kind: str) -> None:
    module = "from drupe.api import Ref, hookimpl\n"
    module += f"@hookimpl\ndef drupe_{kind}():\n    return [Ref('loud', 'loud_code:Loud', 'tells of its import')]\n"
    acme.add("loud", {"loud": "loud"}, {"loud.py": module, "loud_code.py": "raise SystemExit('imported')"})
    acme.ship("drupe-commands", "acme")
    acme.allow("loud")
    for shown in (
        ("passes", "sign"), ("tasks", "echoing"), ("evaluators", "length"), ("runtimes", "echo"),
        ("providers", "paper"), ("providers", "PaperExecutionProvider"),
    ):  # fmt: skip
        done = acme.run_here(*shown)
        assert (done.returncode, done.stderr) == (0, ""), shown


def test_an_evaluator_shows_the_options_that_set_its_keys(acme: Site) -> None:
    shown = json.loads(acme.run_here("evaluators", "length", "--json").stdout)
    assert shown["configuration"][0]["set_by"] == "--longest"


def test_a_provider_shows_its_recipes_by_stage(acme: Site) -> None:
    shown = json.loads(acme.run_here("providers", "paper", "--json").stdout)
    stages = {record["precision"]: record["stages"] for record in shown["recipes"]}
    assert stages["int4"] == "import > fuse > quantize > package" and stages["loud"] == "shout > sign"
    assert stages["plain"] == "sign (by=--author)"
    assert shown["runtimes"] == ["echo"]


def test_inspect_says_whether_a_model_of_one_or_several_parts_is_supported(acme: Site, source: Path) -> None:
    acme.ship("drupe-commands", "acme")
    facts = json.loads(acme.run_here("inspect", source, "--json").stdout)
    assert facts["kind"] == "text" and facts["task"] == "echoing" and facts["parts"][0]["facts"] == {"signed": "no"}
    assert facts["supported"] is True and facts["target"]["provider"] == "paper"
    (source / "model.txt").unlink()
    (source / "low.txt").write_text("la")
    (source / "high.txt").write_text("li")
    done = acme.run_here("inspect", source, "--json")
    assert done.returncode == acme.run_here("optimize", source, "--plan").returncode == 4
    facts = json.loads(done.stdout)
    assert next((each["role"], each["facts"]) for each in facts["parts"]) == ("low", {"ink": "black"})
    assert facts["supported"] is False and "stage 'quantize'" in facts["why_not"]


def test_inspect_describes_a_checkpoint_and_its_package(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "qwen2", tie_word_embeddings=True)
    facts = json.loads(program("inspect", checkpoint, "--json"))
    assert facts["architecture"] == "Qwen2ForCausalLM" and facts["supported"] is True
    assert facts["task"] == "text-generation" and facts["passes"]["names"][0] == "build-decoder"
    assert facts["layer_groups"][0]["layers"] == list(range(facts["layers"]))
    assert facts["parameters"] * 4 == facts["weight_bytes"] > 100_000
    program("optimize", checkpoint, "-o", tmp_path / "out", "--no-verify")
    facts = json.loads(program("inspect", tmp_path / "out", "--json"))
    assert facts["precision"] == "int4" and {each["bits"] for each in facts["quantization"]} <= {4, 8}
    assert facts["weight_bytes"] == sum(facts["bytes_by_type"].values())
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    refused = program("inspect", checkpoint, status=3)
    assert "supported            no\n" in refused and "pickles" in refused and "save_pretrained" in refused


@pytest.mark.parametrize("bytes_left", [50, -100])
def test_inspect_of_a_checkpoint_that_is_cut_short_ends_as_optimize_would(tmp_path: Path, bytes_left: int) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:bytes_left])
    told = program("inspect", checkpoint, status=3)
    assert (
        "supported            no\n" in told and "not a sound safetensors file" in told and "download the file" in told
    )
    assert json.loads(program("inspect", checkpoint, "--json", status=3))["supported"] is False
    program("optimize", checkpoint, "--plan", status=3)


@pytest.mark.parametrize("record", ["", "{", "[]", '{"notices": 7}', '{"notices": [{"what": "none of its own"}]}'])
def test_inspect_of_a_package_with_a_damaged_record_says_so(tmp_path: Path, record: str) -> None:
    folder = make_relu(tmp_path / "relu")
    (folder / "drupe.json").write_text(record)
    command = [sys.executable, "-m", "drupe", "inspect", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert (
        done.stderr.startswith("error: the package's record is damaged\n") and str(folder / "drupe.json") in done.stderr
    )


def make_relu(folder: Path) -> Path:
    """A folder with a graph that writes no text and gives no embeddings."""
    import onnx

    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    folder.mkdir()
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return folder


@pytest.mark.parametrize("command", [("generate", "PACKAGE", "hi"), ("chat", "PACKAGE"), ("embed", "PACKAGE", "hi")])
def test_a_command_for_another_task_is_an_error_of_the_model(tmp_path: Path, command: tuple[str, ...]) -> None:
    pytest.importorskip("onnxruntime")
    folder = make_relu(tmp_path / "relu")
    assert program(*(folder if each == "PACKAGE" else each for each in command), status=3) == ""


def test_families_are_listed_without_a_model(acme: Site) -> None:
    done = acme.run_here("inspect", "gpt2", "--families")
    assert done.returncode == 2 and "--families lists all families, and says nothing of 'gpt2'" in done.stderr
