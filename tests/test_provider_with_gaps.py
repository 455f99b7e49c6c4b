"""A third party's provider whose operator table has gaps: what cannot be made is said before the work, with its cause.

The table is that of the provider `cpu` without some operators.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from sites import Done, Site
from tiny import make_checkpoint

import drupe_ep_cpu

TABLE = Path(drupe_ep_cpu.__file__).parent / "tables" / "1.32.json"
PROVIDER = """
from pathlib import Path

from drupe.api import Device, Recipe, Ref, RuntimePackage, hookimpl
from drupe_onnx import TableProvider, float_stages, quantized_stages

class Acme(TableProvider):
    name = "acme"
    summary = "Acme's cards"
    runtime_name = "AcmeExecutionProvider"
    versioned_by = ("onnxruntime-acme",)
    packages = (RuntimePackage("onnxruntime", "pip install onnxruntime-acme"),)
    tables = (Path(__file__).with_name("operators.json"),)

    def recipes(self):
        return [
            Recipe("acme-int4", "int4", quantized_stages(4)),
            Recipe("acme-fp32", "fp32", float_stages("float32", "float32")),
        ]

    def devices(self):
        return [Device("Acme One", "npu")]

@hookimpl
def drupe_execution_providers():
    return [Ref("acme", "acme_npu:Acme", Acme.summary, also=("AcmeExecutionProvider",), device="npu")]
"""
PRODUCT, ATTENTION, CAST = "com.microsoft::MatMulNBits", "com.microsoft::GroupQueryAttention", "Cast"
CALIBRATED = ("--quality", "best", "--calibration-sequences", "4", "--calibration-length", "32")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("gaps") / "checkpoint")


def site_without(operator: str, folder: Path, provider: str = PROVIDER) -> Site:
    """A site with a provider whose table lacks an operator."""
    table = json.loads(TABLE.read_text())
    del table["operators"][operator]
    (folder / "site").mkdir()
    site = Site(folder / "site")
    files = {"acme_npu.py": provider, "operators.json": json.dumps({**table, "runtime_versions": ">=0"})}
    site.add("acme-npu", {"acme-npu": "acme_npu"}, files)
    return site


def told(done: Done) -> tuple[str, str]:
    """What the error of a run says, and its cure."""
    lines = done.stderr.splitlines()
    (what,) = (line.removeprefix("error: ") for line in lines if line.startswith("error: "))
    return what, lines[-1].strip()  # on a busy machine, a warning that the provider is slow stands before


@pytest.mark.parametrize("more", [(), ("--plan",), CALIBRATED], ids=["run", "plan", "calibrated"])
@pytest.mark.parametrize(
    ("operator", "what"),
    [
        (PRODUCT, "'acme' of acme-npu 1.0 supports no quantized matrix of the model; "),
        (ATTENTION, "'acme' of acme-npu 1.0 has no GroupQueryAttention for float32 activations"),
    ],
    ids=["product", "attention"],
)
def test_a_missing_operator_is_said_before_the_work_with_the_provider_and_its_plugin(
    checkpoint: Path, tmp_path: Path, operator: str, what: str, more: tuple[str, ...]
) -> None:
    site = site_without(operator, tmp_path)
    done = site.run_here("optimize", checkpoint, "-o", tmp_path / "out", "--provider", "acme", *more)
    assert (done.returncode, done.stdout) == (4, "")
    assert told(done)[0].startswith(what)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [(), CALIBRATED], ids=["run", "calibrated"])
def test_an_operator_that_no_pass_asks_for_is_missed_before_the_work(
    checkpoint: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    site = site_without(CAST, tmp_path)
    done = site.run_here(
        "optimize", checkpoint, "-o", tmp_path / "out", "--provider", "acme", "--log-level", "1", *more
    )
    assert done.returncode == 4
    assert "the model would not run on 'acme' of acme-npu 1.0: no kernel for Cast" in done.stderr
    assert done.stderr.strip().endswith("try: --provider cpu")
    assert "quantize-gptq" not in done.stderr.partition("error: ")[0]
    planned = site.run_here("optimize", checkpoint, "--provider", "acme", "--plan")
    assert "would not run on 'acme' of acme-npu 1.0: no kernel for Cast" in planned.stdout


def test_the_cure_names_only_what_would_work(checkpoint: Path, tmp_path: Path) -> None:
    site = site_without(PRODUCT, tmp_path)

    def tried(*more: object) -> Done:
        return site.run_here("optimize", checkpoint, "-o", tmp_path / "out", "--no-verify", *more)

    assert told(tried("--provider", "acme"))[1] == "try: --precision fp32, or --provider cpu"
    assert tried("--provider", "acme", "--precision", "fp32").returncode == 0
    assert tried("--provider", "cpu", "--force").returncode == 0
    # These options have no effect in floating point, which would be an error as well.
    assert told(tried("--provider", "acme", "--block-size", "32", "--force"))[1] == "try: --provider cpu"


def test_the_cure_for_a_workflow_is_written_as_in_its_file(checkpoint: Path, tmp_path: Path) -> None:
    site = site_without(PRODUCT, tmp_path)
    file = tmp_path / "workflow.yaml"
    file.write_text(f"model: {checkpoint}\ntarget:\n  provider: acme\n")
    done = site.run_here("run", file, "-o", tmp_path / "out")
    assert done.returncode == 4
    assert told(done)[1] == "try: target.precision: fp32, or target.provider: cpu"


@pytest.mark.parametrize("numerics", ['{"bitz": 4}', '{"bits": 5, "symmetric": True}'])
def test_a_stage_that_nobody_fills_names_the_recipe_and_what_it_asks_for(
    checkpoint: Path, tmp_path: Path, numerics: str
) -> None:
    code = PROVIDER.replace("import Device", "import Device, Stage")
    code = code.replace("quantized_stages(4)", f'(Stage("import"), Stage("quantize", {numerics}), Stage("package"))')
    site = site_without(CAST, tmp_path, code)
    done = site.run_here("optimize", checkpoint, "-o", tmp_path / "out", "--provider", "acme")
    asked = ", ".join(f"{key} = {value}" for key, value in ast.literal_eval(numerics).items())
    assert done.returncode == 4
    wanted = f"fills the stage 'quantize' with {asked}, as the recipe 'acme-int4' of acme-npu 1.0 asks,"
    assert wanted in told(done)[0]


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ('Stage("fuse", {"flavour": 1})', "acme-npu asks the stage 'fuse' for flavour = 1, which no pass reads;"),
        (
            'Stage("package", {"max_lenght": 9})',
            "acme-npu asks the stage 'package' for max_lenght = 9, which no pass reads; did you mean max_length",
        ),
        (
            'Stage("import", {"activation": "float32"})',
            "acme-npu gives the pass 'build-decoder' an unknown key 'activation'; did you mean activations",
        ),
    ],
)
def test_numerics_that_no_pass_reads_are_the_mistake_of_their_plugin(
    checkpoint: Path, tmp_path: Path, stage: str, told: str
) -> None:
    code = PROVIDER.replace("import Device", "import Device, Stage")
    code = code.replace("quantized_stages(4)", f'(Stage("import"), {stage}, Stage("quantize", {{"bits": 4}}))')
    if "import" in stage:
        code = code.replace('Stage("import"), ', "")
    site = site_without(CAST, tmp_path, code)
    done = site.run_here("optimize", checkpoint, "-o", tmp_path / "out", "--provider", "acme")
    assert done.returncode == 8 and told in done.stderr, done.stderr
    key = stage.partition('{"')[2].partition('"')[0]
    listed = site.run_here("plugins").stdout
    assert f"'{key}', which no installed pass has as a key" in listed, listed
