"""The execution provider `cpu`: its runtimes, recipes and device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drupe.api import Device, ExecutionProvider, Recipe, RuntimePackage, Step
from drupe_ep_cpu import machine

_TABLES = Path(__file__).with_name("tables")
_INSTALL = "pip install drupe[cpu]"
_ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml")

_SCHEME = {name: name for name in ("block_size", "symmetric", "head_bits")}
_QUANTIZE = {"quality": "quality", **_SCHEME}
_BUDGET = {name: name for name in ("target_size", "bits_per_weight", "max_kl")}
_CALIBRATE = {f"calibration_{name}": f"calibration_{name}" for name in ("data", "sequences", "length", "seed")}
_BUILD = {"all_logits": "all_logits"}


def _four_bits(summary: str) -> Recipe:
    """Bits and blocks by a budget, unless fast; the best quality measures and calibrates."""
    best = {"quality": ("best",)}
    steps = (
        Step("build-decoder", options=_BUILD),
        Step("measure-sensitivity", options=_CALIBRATE, when={**best, "max_kl": ()}),
        Step(
            "allocate-bits",
            options={**_BUDGET, **_SCHEME},
            when={"quality": (None, "balanced", "best"), **dict.fromkeys(_BUDGET, ())},
        ),
        Step("quantize-gptq", options={**_CALIBRATE, **_SCHEME}, when=best),
        Step("quantize-weights", options=_QUANTIZE, when={"quality": (None, "fast", "balanced")}),
        Step("package-genai"),
    )
    return Recipe("cpu-int4", "int4", steps, summary)


def _eight_bits(summary: str) -> Recipe:
    steps = (
        Step("build-decoder", options=_BUILD),
        Step("quantize-weights", {"bits": 8}, options=_QUANTIZE),
        Step("package-genai"),
    )
    return Recipe("cpu-int8", "int8", steps, summary)


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
            _four_bits("4-bit weights, float32 activations: the smallest and fastest"),
            _eight_bits("8-bit weights, float32 activations"),
            _stored("fp16", "float16", "weights kept in float16, computed in float32"),
            _stored("bf16", "bfloat16", "weights kept in bfloat16, computed in float32"),
            _stored("fp32", "float32", "float32 throughout"),
        )

    def devices(self) -> Sequence[Device]:
        return (Device(machine.processor(), "cpu", machine.available_memory()),)
