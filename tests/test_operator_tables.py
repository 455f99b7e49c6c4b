"""tools/operator_tables.py writes the operator table of any provider that a plugin brings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_checkpoint

from drupe_onnx import Capabilities, OperatorUse

TOOL = Path(__file__).resolve().parents[1] / "tools" / "operator_tables.py"
PLUGIN = """
from drupe.api import Ref, hookimpl

@hookimpl
def drupe_execution_providers():
    return [Ref("acme", "acme_npu_provider:Acme", "Acme's cards", device="npu")]
"""
PROVIDER = """
from pathlib import Path
from drupe.api import Recipe, RuntimePackage
from drupe_onnx import TableProvider, quantized_stages

class Acme(TableProvider):
    name = "acme"
    summary = "Acme's cards"
    runtime_name = "{runtime}"
    versioned_by = ("onnxruntime",)
    packages = (RuntimePackage("onnxruntime", "pip install onnxruntime-acme"),)
    tables = (Path(__file__).with_name("operators.json"),)

    def recipes(self):
        return (Recipe("acme-int4", "int4", quantized_stages(4)),)

    def devices(self):
        return ()
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder on the import path with a vendor's distribution, whose runtime has the kernels of the CPU."""
    pytest.importorskip("onnxruntime")
    about = tmp_path / "acme_npu-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: acme-npu\nVersion: 1.0\nRequires-Dist: drupe-kernel\n"
    )
    (about / "entry_points.txt").write_text("[drupe.plugins]\nacme-npu = acme_npu_plugin\n")
    (tmp_path / "acme_npu_plugin.py").write_text(PLUGIN)
    (tmp_path / "acme_npu_provider.py").write_text(PROVIDER.format(runtime="CPUExecutionProvider"))
    return tmp_path


def write_table(site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_vendors_table_is_written_to_the_path_that_its_provider_reads(site: Path) -> None:
    done = write_table(site, "acme")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(site / "operators.json")
    table = Capabilities.from_json(site / "operators.json")
    assert table.activations == ("float32",)
    assert table.serves(OperatorUse("", "MatMul", 21, ("float32", "float32"), ("float32",)))
    assert table.serves(OperatorUse("", "Constant", 21, (), ("int64",)))


def test_the_table_can_be_written_elsewhere(site: Path) -> None:
    assert write_table(site, "acme", "--output", site / "other.json").returncode == 0
    assert Capabilities.from_json(site / "other.json").operators
    assert not (site / "operators.json").exists()


def test_a_vendors_amendments_narrow_its_table(site: Path) -> None:
    import onnxruntime

    amended = {
        "runtime_versions": f">={onnxruntime.__version__}",
        "activations": ["float32"],
        "traits": {"acme.tile_bytes": 4096},
        "without_kernel": [],
        "operators": {"Add": {"why": "tried", "kernels": [{"types": {"T": ["float32"]}}]}},
    }
    (site / "amendments").mkdir()
    (site / "amendments" / "operators.json").write_text(json.dumps(amended))
    assert write_table(site, "acme").returncode == 0
    table = Capabilities.from_json(site / "operators.json")
    assert table.traits == {"acme.tile_bytes": 4096}
    assert not table.serves(OperatorUse("", "Add", 21, ("int64", "int64"), ("int64",)))


def test_a_runtime_without_kernels_for_the_provider_is_an_error(site: Path) -> None:
    (site / "acme_npu_provider.py").write_text(PROVIDER.format(runtime="AcmeExecutionProvider"))
    done = write_table(site, "acme")
    assert done.returncode == 3
    assert "lists no kernels of AcmeExecutionProvider" in done.stderr
    assert "pip install onnxruntime-acme" in done.stderr
    assert not (site / "operators.json").exists()


def test_the_error_for_an_unknown_provider_suggests_the_nearest(site: Path) -> None:
    done = write_table(site, "acmi")
    assert done.returncode == 2
    assert "unknown provider 'acmi'; did you mean acme" in done.stderr


@pytest.mark.parametrize(
    ("activations", "recipe", "told"),
    [
        (
            ["float32"],
            'activations="float16"',
            "the recipe 'acme-int4' of the provider 'acme' of acme-npu 1.0 computes in float16",
        ),
        ([], "", "of acme-npu 1.0 lists nothing as activations"),
        (["int8"], "", "of acme-npu 1.0 lists int8 as activations"),
        (["float32"], "block_size=48", "acme-npu gives the pass 'quantize-weights' block_size = 48"),
    ],
)
def test_a_recipe_that_its_own_table_or_a_pass_refuses_is_the_mistake_of_its_plugin(
    site: Path, tmp_path: Path, activations: list[str], recipe: str, told: str
) -> None:
    code = site / "acme_npu_provider.py"
    code.write_text(code.read_text().replace("quantized_stages(4)", f"quantized_stages(4, {recipe})"))
    table = {"runtime_versions": ">=1", "activations": activations, "operators": {}}
    (site / "operators.json").write_text(json.dumps(table))
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    command = [sys.executable, "-m", "drupe", "optimize", str(checkpoint), "-o", str(tmp_path / "out"), "--no-verify"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(
        [*command, "--provider", "acme"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 8 and told in done.stderr, done.stderr
