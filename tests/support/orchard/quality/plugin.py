"""The plugin registers a value of --quality, the claim for it, and a flag."""

from __future__ import annotations

from drupe.api import Claim, Option, Step, hookimpl


@hookimpl
def drupe_options():
    return [
        Option("quality", "", choices=("acme",), extends=True),
        Option("grain", "Weights that share a scale.", type=int, group="Orchard", needs="--quality acme"),
    ]


@hookimpl
def drupe_claim(stage, model, target, request):
    if stage.name != "quantize" or model.kind != "onnx" or request.options.get("quality") != "acme":
        return None
    numerics = {key: stage.numerics[key] for key in ("bits", "symmetric") if key in stage.numerics}
    step = Step("quantize-weights", {**numerics, "method": "rtn"}, {"block_size": "grain"})
    return Claim("acme", (step,), reads=("quality",))
