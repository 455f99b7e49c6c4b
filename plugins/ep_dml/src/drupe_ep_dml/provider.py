"""The execution provider `dml`: its runtimes, recipes and devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import Device, ExecutionProvider, Recipe, RuntimePackage, Step
from drupe_ep_dml import machine
from drupe_nbits import eight_bits, four_bits

_TABLES = Path(__file__).with_name("tables")
_INSTALL = "pip install 'drupe[directml]'"

_BUILD = {"all_logits": "all_logits"}


def _quantized(precision: str, steps: Sequence[Step], summary: str) -> Recipe:
    whole = (Step("build-decoder", {"activations": "float16"}, options=_BUILD), *steps, Step("package-genai"))
    return Recipe(f"dml-{precision}", precision, whole, summary)


def _float(precision: str, element: str, summary: str) -> Recipe:
    config = {"weights": element, "activations": element}
    steps = (Step("build-decoder", config, options=_BUILD), Step("package-genai"))
    return Recipe(f"dml-{precision}", precision, steps, summary)


class Dml(ExecutionProvider):
    """DirectML, which drives any DirectX 12 GPU on Windows. It has no bfloat16."""

    name = "dml"
    summary = "DirectML, any DirectX 12 GPU on Windows"
    runtime_name = "DmlExecutionProvider"
    aliases = ("directml",)
    device_kind = "gpu"
    versioned_by = ("onnxruntime-directml",)
    packages = (
        RuntimePackage("onnxruntime-genai", _INSTALL),
        RuntimePackage("onnxruntime", _INSTALL),
    )
    tables = (_TABLES / "1.24.json",)

    def recipes(self) -> Sequence[Recipe]:
        return (
            _quantized(
                "int4", four_bits(symmetric=True), "4-bit weights, float16 activations: the smallest and fastest"
            ),
            _quantized("int8", eight_bits(symmetric=True), "8-bit weights, float16 activations"),
            _float("fp16", "float16", "float16 throughout"),
            _float("fp32", "float32", "float32 throughout"),
        )

    def devices(self) -> Sequence[Device]:
        if self.runtime_version() is None:
            return ()
        return tuple(Device(name, "gpu", memory) for name, memory in machine.adapters())

    def runtime_options(self) -> Mapping[str, Any]:
        return {"dml": {}}
