"""The claim of the stage `import`: decoders with a supported architecture."""

from __future__ import annotations

from drupe.api import NATIVE, Claim, Model, Stage, Step
from drupe_checkpoints import checkpoint_of
from drupe_model_builder.finding import composition_of

NAME = "builder"
"""The claim's name, by which a user can choose it."""


def claim(stage: Stage, model: Model) -> Claim | None:
    """The step that builds a checkpoint's graph; None for other stages and kinds of model.

    Raises ModelError for an unsupported architecture, and for unsupported settings of a supported one.
    """
    if stage.name != "import" or model.kind != "hf":
        return None
    decoder = composition_of(checkpoint_of(model))
    options = {"all_logits": "all_logits"} if decoder.head else {}
    return Claim(NAME, (Step("build-decoder", stage.numerics, options),), rank=NATIVE)
