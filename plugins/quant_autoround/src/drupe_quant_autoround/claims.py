"""The claims of `--quality autoround`: rounding at the stage `checkpoint`, and taking over the levels at `quantize`."""

from __future__ import annotations

from drupe.api import Claim, Model, Request, Stage, Step, UsageError

QUALITY = "autoround"
"""The value of the option `quality`, and the name by which a user can choose the claims."""
EMBEDDINGS = "feature-extraction"
BITS = 4
_DECIDED_BY = ("quality",)
_TEXT = {key: key for key in (f"calibration_{name}" for name in ("data", "sequences", "length", "seed"))}
_BLOCKS = {key: key for key in ("block_size", "symmetric")}
_TAKEN_OVER = {key: key for key in ("method", "block_size", "symmetric", "head_bits")}


def claim(stage: Stage, model: Model, request: Request) -> Claim | None:
    """The steps for a stage; None for other stages, and for another quality.

    Raises UsageError where weights would be quantized that were not rounded.
    """
    if request.options.get("quality") != QUALITY:
        return None
    numerics = {key: value for key, value in stage.numerics.items() if key != "bits"}
    bits = stage.numerics.get("bits")
    if model.task == EMBEDDINGS:
        raise UsageError(
            f"--quality {QUALITY} rounds only models that generate text, and this one gives embeddings",
            where=model.location,
            cure="another --quality, such as best",
        )
    if stage.name == "checkpoint" and model.kind == "hf" and bits == BITS:
        rounding = Step("round-by-gradient", numerics, {**_TEXT, **_BLOCKS})
        return Claim(QUALITY, (rounding,), reads=_DECIDED_BY)
    if stage.name == "quantize" and model.kind == "onnx":
        _refuse_unrounded(model, bits)
        repack = Step("repack-weights", options={"block_size": "block_size"})
        quantize = Step("quantize-weights", {"bits": BITS, **numerics}, _TAKEN_OVER)
        return Claim(QUALITY, (repack, quantize), reads=_DECIDED_BY)
    return None


def _refuse_unrounded(model: Model, bits: object) -> None:
    if bits != BITS:
        raise UsageError(
            f"--quality {QUALITY} works only with {BITS} bits",
            cure=f"--precision int{BITS}, or another --quality",
        )
    if any(facts.get("rounded") != "by gradient" for facts in model.parts.values()):
        raise UsageError(
            f"--quality {QUALITY} rounds weights at the stage 'checkpoint', but this model's weights were not rounded",
            where=model.location,
            cure="give a checkpoint instead of a graph, or another --quality",
        )
