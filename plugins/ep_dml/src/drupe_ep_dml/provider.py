"""The execution provider `dml`: its runtimes, recipes and devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import Device, Recipe, RuntimePackage
from drupe_ep_dml import machine
from drupe_ep_dml.session_settings import SETTINGS
from drupe_onnx import SessionSetting, TableProvider, float_stages, quantized_stages

_TABLES = Path(__file__).with_name("tables")
_INSTALL = "pip install 'drupe[directml]'"


class Dml(TableProvider):
    """DirectML, which drives any DirectX 12 GPU on Windows. It has no bfloat16."""

    name = "dml"
    summary = "DirectML, any DirectX 12 GPU on Windows"
    runtime_name = "DmlExecutionProvider"
    versioned_by = ("onnxruntime-directml",)
    packages = (
        RuntimePackage("onnxruntime-genai", _INSTALL),
        RuntimePackage("onnxruntime", _INSTALL),
    )
    tables = (_TABLES / "1.24.json",)

    def recipes(self) -> Sequence[Recipe]:
        return (
            Recipe(
                "dml-int4",
                "int4",
                quantized_stages(4, activations="float16", symmetric=True),
                "4-bit weights, float16 activations: the smallest and fastest",
            ),
            Recipe(
                "dml-int8",
                "int8",
                quantized_stages(8, activations="float16", symmetric=True),
                "8-bit weights, float16 activations",
            ),
            Recipe("dml-fp16", "fp16", float_stages("float16", "float16"), "float16 throughout"),
            Recipe("dml-fp32", "fp32", float_stages("float32", "float32"), "float32 throughout"),
        )

    def devices(self) -> Sequence[Device]:
        if self.runtime_version() is None:
            return ()
        return tuple(Device(name, "gpu", memory) for name, memory in machine.adapters())

    def session_settings(self) -> Sequence[SessionSetting]:
        """What `tune-session` tries, and what a user can have it try."""
        return SETTINGS

    def runtime_options(self) -> Mapping[str, Any]:
        return {"dml": {}}
