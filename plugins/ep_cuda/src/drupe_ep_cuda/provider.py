"""The execution provider `cuda`: its runtimes, recipes and devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import Device, ExecutionProvider, Recipe, RuntimePackage, Step
from drupe_ep_cuda import machine
from drupe_nbits import eight_bits, four_bits

_TABLES = Path(__file__).with_name("tables")
_INSTALL = "pip install 'drupe[cuda]'"

_BUILD = {"all_logits": "all_logits"}


def _quantized(precision: str, steps: Sequence[Step], summary: str) -> Recipe:
    whole = (Step("build-decoder", {"activations": "float16"}, options=_BUILD), *steps, Step("package-genai"))
    return Recipe(f"cuda-{precision}", precision, whole, summary)


def _float(precision: str, element: str, summary: str) -> Recipe:
    config = {"weights": element, "activations": element}
    steps = (Step("build-decoder", config, options=_BUILD), Step("package-genai"))
    return Recipe(f"cuda-{precision}", precision, steps, summary)


class Cuda(ExecutionProvider):
    """onnxruntime's kernels for NVIDIA GPUs.

    No recipe computes in float32: GroupQueryAttention has no kernel for it here.
    """

    name = "cuda"
    summary = "onnxruntime's kernels for NVIDIA GPUs"
    runtime_name = "CUDAExecutionProvider"
    device_kind = "gpu"
    versioned_by = ("onnxruntime-gpu",)
    packages = (
        RuntimePackage("onnxruntime-genai", _INSTALL),
        RuntimePackage("onnxruntime", _INSTALL),
    )
    tables = (_TABLES / "1.31.json", _TABLES / "1.24.json")

    def recipes(self) -> Sequence[Recipe]:
        return (
            _quantized("int4", four_bits(), "4-bit weights, float16 activations: the smallest and fastest"),
            _quantized("int8", eight_bits(), "8-bit weights, float16 activations"),
            _float("fp16", "float16", "float16 throughout"),
            _float("bf16", "bfloat16", "bfloat16 throughout, for compute capability 8.0 and later"),
        )

    def devices(self) -> Sequence[Device]:
        if self.runtime_version() is None:
            return ()
        return tuple(Device(name, "gpu", memory) for name, memory in machine.gpus())

    def runtime_options(self) -> Mapping[str, Any]:
        """Graph capture stays off: it wants one fixed shape a session."""
        return {"cuda": {"enable_cuda_graph": "0"}}
