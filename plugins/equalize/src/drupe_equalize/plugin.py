"""The entry module of drupe-equalize: its passes."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref("rotate-weights", "drupe_equalize.rotate_weights:RotateWeights",
            "rotates the hidden states, so that no channel has outliers"),
        Ref("scale-channels", "drupe_equalize.scale_channels:ScaleChannels",
            "scales channels so that quantizing changes the output less, measured on a text (AWQ)"),
        Ref("smooth-activations", "drupe_equalize.smooth_activations:SmoothActivations",
            "moves large values from activations into weights, measured on a text (SmoothQuant)"),
    ]  # fmt: skip
