"""The execution provider `cuda`: its runtimes, recipes and devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drupe.api import Device, Recipe, RuntimePackage
from drupe_ep_cuda import machine
from drupe_ep_cuda.session_settings import SETTINGS
from drupe_onnx import SessionSetting, TableProvider, float_stages, quantized_stages

_TABLES = Path(__file__).with_name("tables")
_INSTALL = "pip install 'drupe[cuda]'"


class Cuda(TableProvider):
    """onnxruntime's kernels for NVIDIA GPUs.

    No recipe computes in float32: GroupQueryAttention has no float32 kernel for CUDA.
    """

    name = "cuda"
    summary = "onnxruntime's kernels for NVIDIA GPUs"
    runtime_name = "CUDAExecutionProvider"
    versioned_by = ("onnxruntime-gpu",)
    packages = (
        RuntimePackage("onnxruntime-genai", _INSTALL),
        RuntimePackage("onnxruntime", _INSTALL),
    )
    tables = (_TABLES / "1.31.json", _TABLES / "1.24.json")

    def recipes(self) -> Sequence[Recipe]:
        return (
            Recipe(
                "cuda-int4",
                "int4",
                quantized_stages(4, activations="float16"),
                "4-bit weights, float16 activations: the smallest and fastest",
            ),
            Recipe(
                "cuda-int8", "int8", quantized_stages(8, activations="float16"), "8-bit weights, float16 activations"
            ),
            Recipe("cuda-fp16", "fp16", float_stages("float16", "float16"), "float16 throughout"),
            Recipe(
                "cuda-bf16",
                "bf16",
                float_stages("bfloat16", "bfloat16"),
                "bfloat16 throughout, for compute capability 8.0 and later",
            ),
        )

    def devices(self) -> Sequence[Device]:
        if self.runtime_version() is None:
            return ()
        return tuple(Device(name, "gpu", memory) for name, memory in machine.gpus())

    def session_settings(self) -> Sequence[SessionSetting]:
        """What `tune-session` tries, and what a user can have it try."""
        return SETTINGS

    def runtime_options(self) -> Mapping[str, Any]:
        """Options that turn graph capture off: it needs the same shapes for a whole session."""
        return {"cuda": {"enable_cuda_graph": "0"}}
