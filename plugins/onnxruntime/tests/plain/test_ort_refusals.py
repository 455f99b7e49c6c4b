"""The models that the runtime onnxruntime refuses, and its reasons."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from drupe.api import Model, ModelError, RuntimeMissing, Target, replace
from drupe_onnxruntime.plain.runtime import OnnxRuntime


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"")
    return tmp_path


def test_a_graph_on_a_device_that_is_here_is_not_refused(wheels: dict[str, str], folder: Path, cpu: Target) -> None:
    assert OnnxRuntime().refusal(Model("onnx", folder), cpu) is None
    assert OnnxRuntime().refusal(Model("onnx", folder / "model.onnx"), cpu) is None


def test_the_refusal_without_an_installed_runtime_names_the_cure(
    wheels: dict[str, str], folder: Path, cpu: Target
) -> None:
    wheels.clear()
    assert OnnxRuntime().version() is None
    assert "not installed" in (OnnxRuntime().refusal(Model("onnx", folder), cpu) or "")
    with pytest.raises(RuntimeMissing, match="not installed") as caught:
        OnnxRuntime().open(Model("onnx", folder), cpu)
    assert "pip install" in (caught.value.cure or "")


def test_the_cure_is_the_providers_install_command(wheels: dict[str, str], folder: Path, cpu: Target) -> None:
    acme = replace(cpu, install="pip install onnxruntime-acme")
    wheels["onnxruntime-gpu"] = "1.32.0"
    with pytest.raises(RuntimeMissing) as caught:
        OnnxRuntime().open(Model("onnx", folder), acme)
    assert (caught.value.cure or "").endswith("then pip install onnxruntime-acme")
    wheels.clear()
    with pytest.raises(RuntimeMissing) as caught:
        OnnxRuntime().open(Model("onnx", folder), acme)
    assert caught.value.cure == "pip install onnxruntime-acme"


def test_the_refusal_for_wheels_that_overwrite_each_other_names_them_and_a_cure(
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
    with pytest.raises(ModelError, match=r"no \.onnx file"):
        OnnxRuntime().open(Model("onnx", tmp_path), cpu)
    with pytest.raises(ModelError, match="'hf'"):
        OnnxRuntime().open(Model("hf", tmp_path), cpu)


def test_a_target_without_its_device_in_this_machine_is_refused(
    wheels: dict[str, str], folder: Path, cpu: Target
) -> None:
    absent = replace(cpu, device=None)
    assert "no device" in (OnnxRuntime().refusal(Model("onnx", folder), absent) or "")
    with pytest.raises(RuntimeMissing, match="no device"):
        OnnxRuntime().open(Model("onnx", folder), absent)


def test_a_refusal_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from drupe.api import Model, Target; "
        "from drupe_onnxruntime.plain.runtime import OnnxRuntime as R; "
        "R().refusal(Model('onnx', Path('.')), Target('cpu')); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.split()
    assert not {"numpy", "onnxruntime", "onnxruntime_genai", "tokenizers"} & set(loaded)
