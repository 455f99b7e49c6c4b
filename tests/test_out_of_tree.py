"""A task, an importer, a quality and a provider from outside the repository: each is one folder, used with flags.

They are in tests/support/orchard, written as by third parties. All that ships with Drupe is installed too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from sites import Done, Site
from tiny import make_checkpoint

ORCHARD = Path(__file__).parent / "support" / "orchard"
FOLDERS = ("task", "importer", "quality", "provider")


def planted(site: Site, *folders: str) -> Site:
    """A site with only these folders of the distribution."""
    paths = [ORCHARD / "__init__.py", *(path for each in folders for path in (ORCHARD / each).iterdir())]
    files = {str(path.relative_to(ORCHARD.parent)): path.read_text() for path in paths if path.is_file()}
    site.add("orchard", {f"orchard-{each}": f"orchard.{each}.plugin" for each in folders}, files)
    return site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "site").mkdir()
    return Site(tmp_path / "site")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a kind that no shipped plugin knows."""
    folder = tmp_path_factory.mktemp("orchard") / "tree"
    folder.mkdir()
    layers = np.random.default_rng(3).standard_normal((2, 64, 64)).round(3) / 8
    (folder / "tree.json").write_text(json.dumps({"layers": layers.tolist()}))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("orchard") / "checkpoint")


def optimize(site: Site, model: Path, out: Path, *more: str) -> Done:
    return site.run_here("optimize", model, "-o", out, *more)


def record(out: Path) -> Any:
    return json.loads((out / "drupe.json").read_text())


def graph(out: Path) -> onnx.ModelProto:
    return onnx.load(out / "model.onnx", load_external_data=False)


def operators(out: Path) -> list[str]:
    return [node.op_type for node in graph(out).graph.node]


def block_sizes(out: Path) -> set[int]:
    """The block sizes of the products with 4-bit weights."""
    attributes = [
        {each.name: each.i for each in node.attribute}
        for node in graph(out).graph.node
        if node.op_type == "MatMulNBits"
    ]
    return {each["block_size"] for each in attributes if each["bits"] == 4}


def test_all_four_together_make_a_package_with_their_own_flags(site, tree, tmp_path):
    out = tmp_path / "out"
    flags = ("--bark", "tanh", "--most-apart", "0.3", "--quality", "acme", "--grain", "32", "--label", "from the south")
    done = planted(site, *FOLDERS).run("optimize", tree, "-o", out, "--provider", "acme-npu", "--require-check", *flags)
    assert done.returncode == 0, done.stderr
    assert "acme-simulator runs it" in done.stdout and "apart" in done.stdout
    assert operators(out) == ["MatMulNBits", "Tanh"] * 2 and block_sizes(out) == {32}
    assert graph(out).doc_string == "from the south"
    told = record(out)
    assert [each["name"] for each in told["passes"]] == ["plant-tree", "quantize-weights", "label-graph"]
    assert [each["placed_by"] for each in told["plan"]["passes"]] == ["orchard"] * 3
    assert (told["task"], told["target"]["brought_by"], told["checked"]) == ("grading", "orchard 1.0", True)
    assert told["check"]["text"] == "8 apples graded" and told["check"]["settings"] == {"most_apart": 0.3}
    assert told["plan"]["options"] == {
        "bark": "tanh", "most_apart": 0.3, "quality": "acme", "grain": 32, "label": "from the south",
    }  # fmt: skip
    again = site.run("run", out / "drupe.json", "-o", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_help_shows_the_flags_under_their_own_heading(site):
    text = planted(site, *FOLDERS).run_here("optimize", "--help").stdout
    section = text.partition("Orchard:\n")[2]
    for flag in ("--bark <relu|tanh>", "--most-apart", "--grain", "--label"):
        assert flag in section
    assert "--quality <fast|balanced|best" in text and "acme" in text


# Each one alone: one folder is enough


def test_models_of_an_importers_kind_are_quantized_and_written(site, tree, tmp_path):
    out = tmp_path / "out"
    done = optimize(planted(site, "importer"), tree, out, "--bark", "tanh", "--quality", "fast")
    assert done.returncode == 0, done.stderr
    assert operators(out) == ["MatMulNBits", "Tanh"] * 2
    assert "no installed plugin knows the task 'grading'" in done.stdout
    required = optimize(site, tree, tmp_path / "out2", "--require-check")
    assert required.returncode == 9 and not (tmp_path / "out2").exists()
    wrong = optimize(site, tree, tmp_path / "out2", "--bark", "tahn")
    assert wrong.returncode == 2 and "did you mean tanh?" in wrong.stderr


def test_a_task_checks_and_compares_models_of_an_importer(site, tree, tmp_path):
    planted(site, "importer", "task")
    done = optimize(site, tree, tmp_path / "out", "--require-check")
    assert done.returncode == 0, done.stderr
    assert "8 apples graded" in record(tmp_path / "out")["check"]["text"]
    assert 0 < record(tmp_path / "out")["check"]["metrics"]["apart"] < 1
    strict = optimize(site, tree, tmp_path / "out2", "--most-apart", "0.0001")
    assert strict.returncode == 7 and "apart, more than 0.0001" in strict.stderr
    assert not (tmp_path / "out2").exists()


def test_a_quality_quantizes_a_real_checkpoint_and_only_it_reads_its_flag(site, checkpoint, tmp_path):
    planted(site, "quality")
    done = optimize(site, checkpoint, tmp_path / "out", "--quality", "acme", "--grain", "64", "--no-verify")
    assert done.returncode == 0, done.stderr
    assert block_sizes(tmp_path / "out") == {64}
    names = [each["name"] for each in record(tmp_path / "out")["passes"]]
    assert names == ["build-decoder", "quantize-weights", "package-genai"]
    refused = optimize(site, checkpoint, tmp_path / "out2", "--quality", "fast", "--grain", "64")
    assert refused.returncode == 2 and "--grain has no effect without --quality acme" in refused.stderr


def test_a_package_for_a_provider_uses_its_recipe_pass_and_runtime(site, tree, tmp_path):
    planted(site, "importer", "task", "provider")
    out = tmp_path / "out"
    done = optimize(site, tree, out, "--device", "npu", "--label", "mine", "--require-check")
    assert done.returncode == 0, done.stderr
    assert graph(out).doc_string == "mine"
    assert record(out)["target"]["provider"] == "acme-npu" and record(out)["check"]["runtime"] == "acme-simulator"
    listed = site.run_here("providers", "acme-npu").stdout
    assert "AcmeExecutionProvider" in listed and "int4" in listed
    elsewhere = optimize(site, tree, tmp_path / "out2", "--provider", "cpu", "--label", "mine")
    assert elsewhere.returncode == 2 and "--label has no effect" in elsewhere.stderr


def test_nothing_changes_for_a_user_who_uses_none_of_them(site, checkpoint, tmp_path):
    before = optimize(site, checkpoint, tmp_path / "before", "--no-verify")
    after = optimize(planted(site, *FOLDERS), checkpoint, tmp_path / "after", "--no-verify")
    assert (before.returncode, after.returncode) == (0, 0)
    for path in (tmp_path / "before").iterdir():
        if path.name != "drupe.json":
            assert path.read_bytes() == (tmp_path / "after" / path.name).read_bytes()
    assert record(tmp_path / "before")["plan"] == record(tmp_path / "after")["plan"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_drupe_plugins_finds_no_mistakes_in_the_distribution(site, folder):
    shown = planted(site, *FOLDERS).run_here("plugins", f"orchard-{folder}", "--json")
    told = json.loads(shown.stdout)
    assert shown.returncode == 0 and told["in_use"] and not told["notes"]
    assert {thing["checked"] for thing in told["brings"]} == {"well"}
