"""The packages that the runtime onnxruntime-genai refuses, and its reasons."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from drupe.api import Model, ModelError, RuntimeMissing, Target, replace
from drupe_onnxruntime.genai.runtime import OnnxRuntimeGenai


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "genai_config.json").write_text("{}")
    return tmp_path


def test_a_package_on_a_device_that_is_here_is_not_refused(wheels: dict[str, str], folder: Path, cpu: Target) -> None:
    assert OnnxRuntimeGenai().refusal(Model("onnx", folder), cpu) is None


def test_the_refusal_without_an_installed_runtime_names_the_cure(
    wheels: dict[str, str], folder: Path, cpu: Target
) -> None:
    wheels.clear()
    assert OnnxRuntimeGenai().version() is None
    assert "not installed" in (OnnxRuntimeGenai().refusal(Model("onnx", folder), cpu) or "")
    with pytest.raises(RuntimeMissing, match="not installed") as caught:
        OnnxRuntimeGenai().open(Model("onnx", folder), cpu)
    assert "pip install" in (caught.value.cure or "")


@pytest.mark.parametrize("second", ["onnxruntime-genai-cuda", "onnxruntime-gpu"])
def test_the_refusal_for_wheels_that_overwrite_each_other_names_them_and_a_cure(
    wheels: dict[str, str], folder: Path, cpu: Target, second: str
) -> None:
    wheels[second] = "1.2.3"
    assert f"{second} 1.2.3" in (OnnxRuntimeGenai().refusal(Model("onnx", folder), cpu) or "")
    with pytest.raises(RuntimeMissing, match="overwrite each other") as caught:
        OnnxRuntimeGenai().open(Model("onnx", folder), cpu)
    assert f"{second}, then pip install" in (caught.value.cure or "")


def test_the_right_wheel_for_another_device_counts_as_installed(wheels: dict[str, str]) -> None:
    wheels.clear()
    wheels["onnxruntime-genai-directml"] = "0.14.1"
    assert OnnxRuntimeGenai().version() == "0.14.1"


def test_a_model_of_another_kind_and_a_folder_without_a_configuration_are_refused(
    wheels: dict[str, str], tmp_path: Path, cpu: Target
) -> None:
    assert "'hf'" in (OnnxRuntimeGenai().refusal(Model("hf", tmp_path), cpu) or "")
    assert "genai_config.json" in (OnnxRuntimeGenai().refusal(Model("onnx", tmp_path), cpu) or "")
    with pytest.raises(ModelError, match=r"no genai_config\.json"):
        OnnxRuntimeGenai().open(Model("onnx", tmp_path), cpu)


def test_a_target_without_its_device_in_this_machine_is_refused(
    wheels: dict[str, str], folder: Path, cpu: Target
) -> None:
    absent = replace(cpu, device=None)
    assert "no device" in (OnnxRuntimeGenai().refusal(Model("onnx", folder), absent) or "")


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {}}', '{"model": {"context_length": "x", "vocab_size": 1}}'])
def test_a_configuration_that_cannot_be_read_is_an_error(
    wheels: dict[str, str], folder: Path, cpu: Target, content: str
) -> None:
    (folder / "genai_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"genai_config\.json"):
        OnnxRuntimeGenai().open(Model("onnx", folder), cpu)


def test_a_refusal_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from drupe.api import Model, Target; "
        "from drupe_onnxruntime.genai.runtime import OnnxRuntimeGenai as R; "
        "R().refusal(Model('onnx', Path('.')), Target('cpu')); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.split()
    assert not {"numpy", "onnxruntime", "onnxruntime_genai", "tokenizers"} & set(loaded)
