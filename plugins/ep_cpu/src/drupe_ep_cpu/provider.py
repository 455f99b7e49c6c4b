"""The execution provider `cpu`: its runtimes, recipes and device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drupe.api import Device, Recipe, RuntimePackage, usable_threads
from drupe_ep_cpu import machine
from drupe_onnx import (
    ARENA,
    OPTIMIZATION,
    SPINNING,
    THREADS,
    SessionSetting,
    TableProvider,
    float_stages,
    quantized_stages,
)

_TABLES = Path(__file__).with_name("tables")
_INSTALL = "pip install 'drupe[cpu]'"
MOST_COUNTS = 5
"""Of threads, how many numbers are tried."""
_ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml")


class Cpu(TableProvider):
    """onnxruntime's own kernels, which every build of it has."""

    name = "cpu"
    summary = "onnxruntime's own kernels on any processor"
    runtime_name = "CPUExecutionProvider"
    versioned_by = _ONNXRUNTIME
    packages = (
        RuntimePackage("onnxruntime-genai", _INSTALL),
        RuntimePackage("onnxruntime", _INSTALL),
    )
    tables = (_TABLES / "1.32.json", _TABLES / "1.24.json")

    def recipes(self) -> Sequence[Recipe]:
        """No kernel multiplies in float16 or bfloat16: they are types to store weights in."""
        return (
            Recipe(
                "cpu-int4", "int4", quantized_stages(4), "4-bit weights, float32 activations: the smallest and fastest"
            ),
            Recipe("cpu-int8", "int8", quantized_stages(8), "8-bit weights, float32 activations"),
            Recipe("cpu-fp16", "fp16", float_stages("float16", "float32"), "float16 weights, computed in float32"),
            Recipe("cpu-bf16", "bf16", float_stages("bfloat16", "float32"), "bfloat16 weights, computed in float32"),
            Recipe("cpu-fp32", "fp32", float_stages("float32", "float32"), "float32 throughout"),
        )

    def session_settings(self) -> Sequence[SessionSetting]:
        """What `tune-session` tries: fewer threads than the process may use, down to the sizes of small models."""
        most = usable_threads()
        counts = [most, min(machine.physical_cores() or most, most)]
        while counts[-1] > 1 and len(counts) < MOST_COUNTS:
            counts.append(counts[-1] // 2)
        return (
            THREADS.trying(*dict.fromkeys(counts)),
            SPINNING.trying(False),
            OPTIMIZATION.trying("extended"),
            ARENA.trying(False),
        )

    def devices(self) -> Sequence[Device]:
        return (Device(machine.processor(), "cpu", machine.available_memory()),)
