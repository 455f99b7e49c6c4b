"""The entry module of drupe-ep-dml: the execution provider `dml`."""

from __future__ import annotations

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_execution_providers() -> list[Ref]:
    summary, also = "DirectML, any DirectX 12 GPU on Windows", ("DmlExecutionProvider", "directml")
    return [Ref("dml", "drupe_ep_dml.provider:Dml", summary, also, device="gpu")]
