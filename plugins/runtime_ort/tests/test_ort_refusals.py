"""What the runtime refuses, and what it says then."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from drupe.api import Model, ModelError, RuntimeMissing, Target
from drupe_runtime_ort.runtime import OnnxRuntime, provider_options


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The distributions that are installed, as far as the plugin can see."""
    versions = {"onnxruntime": "1.32.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    return versions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"")
    return tmp_path


def test_a_graph_on_a_device_that_is_here_is_not_refused(wheels: dict[str, str], folder: Path, cpu: Target) -> None:
    assert OnnxRuntime().refusal(Model("onnx", folder), cpu) is None
    assert OnnxRuntime().refusal(Model("onnx", folder / "model.onnx"), cpu) is None


def test_not_installed_is_said_with_the_cure(wheels: dict[str, str], folder: Path, cpu: Target) -> None:
    wheels.clear()
    assert OnnxRuntime().version() is None
    assert "not installed" in (OnnxRuntime().refusal(Model("onnx", folder), cpu) or "")
    with pytest.raises(RuntimeMissing, match="not installed") as caught:
        OnnxRuntime().open(Model("onnx", folder), cpu)
    assert "pip install" in (caught.value.cure or "")


def test_wheels_that_overwrite_each_other_are_named_with_the_cure(
    wheels: dict[str, str], folder: Path, cpu: Target
) -> None:
    wheels["onnxruntime-directml"] = "1.24.4"
    assert "onnxruntime-directml 1.24.4" in (OnnxRuntime().refusal(Model("onnx", folder), cpu) or "")
    with pytest.raises(RuntimeMissing, match="overwrite each other") as caught:
        OnnxRuntime().open(Model("onnx", folder), cpu)
    assert "uninstall -y onnxruntime onnxruntime-directml" in (caught.value.cure or "")


def test_a_model_of_another_kind_and_a_folder_without_a_graph_are_refused(
    wheels: dict[str, str], tmp_path: Path, cpu: Target
) -> None:
    assert "'hf'" in (OnnxRuntime().refusal(Model("hf", tmp_path), cpu) or "")
    assert "no .onnx file" in (OnnxRuntime().refusal(Model("onnx", tmp_path), cpu) or "")
    with pytest.raises(ModelError, match="no ONNX model"):
        OnnxRuntime().open(Model("onnx", tmp_path), cpu)


def test_a_device_that_is_elsewhere_is_refused(wheels: dict[str, str], folder: Path, cpu: Target) -> None:
    absent = dataclasses.replace(cpu, device=None)
    assert "no device" in (OnnxRuntime().refusal(Model("onnx", folder), absent) or "")
    with pytest.raises(RuntimeMissing, match="no device"):
        OnnxRuntime().open(Model("onnx", folder), absent)


def test_a_providers_options_are_text_without_its_name(cpu: Target) -> None:
    cuda = dataclasses.replace(cpu, runtime_options={"cuda": {"enable_cuda_graph": False, "device_id": 1}})
    assert provider_options(cuda) == {"enable_cuda_graph": "0", "device_id": "1"}
    assert provider_options(cpu) == {}


def test_naming_the_plugins_parts_loads_nothing_heavy() -> None:
    code = "import sys, drupe_runtime_ort.plugin as p; p.drupe_runtimes(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "onnxruntime", "onnxruntime_genai", "pydantic", "drupe_runtime_ort.runtime"} & set(loaded)


def test_a_refusal_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from drupe.api import Model; from drupe_runtime_ort.runtime import "
        "OnnxRuntime as R; R().refusal(Model('onnx', Path('.')), None); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.split()
    assert not {"numpy", "onnxruntime", "onnxruntime_genai", "tokenizers"} & set(loaded)
