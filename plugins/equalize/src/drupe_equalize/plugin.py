"""What drupe-equalize brings."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref("rotate-weights", "drupe_equalize.rotate_weights:RotateWeights",
            "rotates the hidden states, so that no channel stands out"),
    ]  # fmt: skip
