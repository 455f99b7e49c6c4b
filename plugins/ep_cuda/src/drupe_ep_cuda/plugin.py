"""The entry module of drupe-ep-cuda: the execution provider `cuda`."""

from __future__ import annotations

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_execution_providers() -> list[Ref]:
    summary = "onnxruntime's kernels for NVIDIA GPUs"
    return [Ref("cuda", "drupe_ep_cuda.provider:Cuda", summary, also=("CUDAExecutionProvider",), device="gpu")]
