"""Entry module: what this plugin brings."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_runtimes() -> list[Ref]:
    return [
        Ref(
            "onnxruntime-genai",
            "drupe_runtime_genai.runtime:OnnxRuntimeGenai",
            "generates text from packages with a genai_config.json",
        )
    ]


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref(
            "package-genai",
            "drupe_runtime_genai.package:PackageGenai",
            "adds what onnxruntime-genai needs to run a decoder: genai_config.json and a tokenizer it reads",
        )
    ]
