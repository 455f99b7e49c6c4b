"""What this distribution adds: the execution provider `cpu`."""

from __future__ import annotations

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_execution_providers() -> list[Ref]:
    summary = "onnxruntime's own kernels on any processor"
    also = ("CPUExecutionProvider",)
    return [Ref("cpu", "drupe_ep_cpu.provider:Cpu", summary, also, device="cpu", preference=10)]
