"""The execution provider `cpu`: its runtimes, recipes and device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drupe.api import Device, ExecutionProvider, Recipe, RuntimePackage, Step
from drupe_ep_cpu import machine
from drupe_nbits import eight_bits, four_bits

_TABLES = Path(__file__).with_name("tables")
_INSTALL = "pip install 'drupe[cpu]'"
_ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml")

_BUILD = {"all_logits": "all_logits"}


def _quantized(precision: str, steps: Sequence[Step], summary: str) -> Recipe:
    whole = (Step("build-decoder", options=_BUILD), *steps, Step("package-genai"))
    return Recipe(f"cpu-{precision}", precision, whole, summary)


def _stored(precision: str, weights: str, summary: str) -> Recipe:
    """No kernel multiplies in float16 or bfloat16, so these are what the weights are kept in."""
    config = {"weights": weights, "activations": "float32"}
    steps = (Step("build-decoder", config, options=_BUILD), Step("package-genai"))
    return Recipe(f"cpu-{precision}", precision, steps, summary)


class Cpu(ExecutionProvider):
    """onnxruntime's own kernels, which every build of it has."""

    name = "cpu"
    summary = "onnxruntime's own kernels on any processor"
    runtime_name = "CPUExecutionProvider"
    device_kind = "cpu"
    versioned_by = _ONNXRUNTIME
    packages = (
        RuntimePackage("onnxruntime-genai", _INSTALL),
        RuntimePackage("onnxruntime", _INSTALL),
    )
    tables = (_TABLES / "1.32.json", _TABLES / "1.24.json")

    def recipes(self) -> Sequence[Recipe]:
        return (
            _quantized("int4", four_bits(), "4-bit weights, float32 activations: the smallest and fastest"),
            _quantized("int8", eight_bits(), "8-bit weights, float32 activations"),
            _stored("fp16", "float16", "weights kept in float16, computed in float32"),
            _stored("bf16", "bfloat16", "weights kept in bfloat16, computed in float32"),
            _stored("fp32", "float32", "float32 throughout"),
        )

    def devices(self) -> Sequence[Device]:
        return (Device(machine.processor(), "cpu", machine.available_memory()),)
