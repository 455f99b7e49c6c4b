"""What this distribution adds: the pass `build-decoder`."""

from __future__ import annotations

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref(
            "build-decoder",
            "drupe_model_builder.build_decoder:BuildDecoder",
            "turns a decoder's checkpoint into an ONNX graph with lazy weights",
        )
    ]
