"""TableProvider: it chooses a table by the runtime's version, makes the target from it, and gives recipe stages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import pytest

from drupe.api import Device, Recipe, RuntimePackage, Stage, UsageError
from drupe_onnx import TableProvider, float_stages, quantized_stages


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Two tables, the newer one first. A broken table comes after them and must never be read."""
    folder = tmp_path_factory.mktemp("tables")
    found = []
    for name, versions in (("new", ">=2.1,<3"), ("old", ">=1.5,<2.1")):
        found.append(folder / f"{name}.json")
        found[-1].write_text(json.dumps({"runtime_versions": versions, "activations": [name], "operators": {}}))
    return tuple(found)


class Acme(TableProvider):
    """A provider with a device only if a test says so."""

    name = "acme"
    summary = "Acme's cards"
    runtime_name = "AcmeExecutionProvider"
    versioned_by = ("no-such-distribution", "drupe-kernel")
    packages = (RuntimePackage("onnxruntime", "pip install onnxruntime-acme"),)
    here: ClassVar[tuple[Device, ...]] = ()

    def recipes(self) -> Sequence[Recipe]:
        return (Recipe("acme-int4", "int4", quantized_stages(4)),)

    def devices(self) -> Sequence[Device]:
        return self.here


@pytest.fixture
def acme(tables: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> Acme:
    monkeypatch.setattr(Acme, "tables", tables, raising=False)
    return Acme()


@pytest.mark.parametrize(
    ("version", "table"), [("2.1.0", "new"), ("2.0.9", "old"), ("1.5", "old"), ("4.0", "new"), (None, "new")]
)
def test_the_version_of_the_runtime_chooses_the_table(acme: Acme, version: str | None, table: str) -> None:
    assert acme.capabilities(version).activations == (table,)


def test_the_error_for_a_runtime_older_than_every_table_names_versions_that_work(acme: Acme) -> None:
    with pytest.raises(UsageError, match=r"'acme' has version 1\.4; drupe supports 1\.5 and later") as caught:
        acme.capabilities("1.4")
    assert caught.value.cure == "pip install -U onnxruntime-acme"


def test_the_version_comes_from_the_first_installed_distribution(acme: Acme) -> None:
    assert acme.runtime_version() == metadata.version("drupe-kernel")


def test_the_target_has_the_table_and_the_device(acme: Acme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Acme, "runtime_version", lambda self: None)
    assert acme.target().capabilities is acme.capabilities(None)
    assert (acme.target().runtime_version, acme.target().here) == ("", False)
    assert acme.target().install == "pip install onnxruntime-acme"
    monkeypatch.setattr(Acme, "here", (Device("Acme One", "npu"),))
    assert acme.target().device == Device("Acme One", "npu")


def test_a_quantized_recipe_gives_its_numerics_to_each_stage_that_may_quantize() -> None:
    stages = {stage.name: stage.numerics for stage in quantized_stages(4, activations="float16", symmetric=True)}
    assert list(stages) == ["train", "checkpoint", "import", "fuse", "prepare", "quantize", "package", "tune"]
    assert stages["import"] == {"activations": "float16"}
    assert stages["checkpoint"] == stages["quantize"] == {"bits": 4, "symmetric": True}


def test_a_floating_point_recipe_has_no_stage_that_quantizes() -> None:
    assert float_stages("float16", "float32") == (
        Stage("train"),
        Stage("checkpoint"),
        Stage("import", {"weights": "float16", "activations": "float32"}),
        Stage("fuse"),
        Stage("package"),
        Stage("tune"),
    )
    assert Recipe("x", "int4", quantized_stages(8)).quantizes
    assert not Recipe("x", "fp16", float_stages("float16", "float16")).quantizes
