"""Entry module: what this plugin brings."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_runtimes() -> list[Ref]:
    return [
        Ref(
            "onnxruntime",
            "drupe_runtime_ort.runtime:OnnxRuntime",
            "runs any ONNX model, and generates text with decoders in a plain loop",
        )
    ]
