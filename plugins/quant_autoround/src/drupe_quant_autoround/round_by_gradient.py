"""The pass `round-by-gradient`."""

from __future__ import annotations

from collections.abc import Sequence

from drupe.api import Context, Form, Model, ModelError, Notice, Pass, RuntimeMissing, counted
from drupe_checkpoints import Checkpoint, checkpoint_of, merged_copy, open_checkpoint
from drupe_quant_autoround.configuration import LIBRARIES, RoundByGradientConfig, installed
from drupe_text import TextTokenizer

INSTALL = "pip install 'drupe[autoround]'"


class RoundByGradient(Pass):
    """AutoRound (https://arxiv.org/abs/2309.05516): signed gradient descent on the output error of each decoder block
    decides whether each weight is rounded up or down, and the range of each block of weights.

    The matrices of the decoder blocks come out packed, in GPTQ's layout; `repack-weights` takes over their levels. The
    rest of the checkpoint does not change.
    """

    name = "round-by-gradient"
    summary = "rounds weights by gradient descent on a text (AutoRound); slow without a GPU"
    revision = 3
    Config = RoundByGradientConfig
    requires = Form("hf")
    ensures = Form("hf", {"rounded": "by gradient"})
    costly = True
    grows_with = "the amount of text"

    def preview(self, model: Model, config: RoundByGradientConfig, context: Context) -> Model:
        """The checkpoint itself: rounded matrices keep their names and shapes."""
        return model

    def run(self, model: Model, config: RoundByGradientConfig, context: Context) -> Model:
        refuse_missing()
        refuse_unfit(checkpoint_of(model))
        model = merged_copy(model, context.scratch / "merged", context)
        checkpoint = checkpoint_of(model)
        checkpoint.fetch_weights()
        sequences = config.calibration_tokens(TextTokenizer(checkpoint.folder))

        from drupe_quant_autoround.tuning import tune
        from drupe_quant_autoround.writing import split_stored, write_checkpoint

        layers = tune(checkpoint, sequences, config, context)
        folder = context.scratch / "checkpoint"
        stored, others = split_stored(layers, checkpoint.folder)
        write_checkpoint(folder, checkpoint, stored, config, context)
        noticed = model.noticed(*([not_kept(others)] if others else []))
        return noticed.but(location=folder, payload=open_checkpoint(folder))


def not_kept(names: Sequence[str]) -> Notice:
    """The notice for matrices that auto-round has rounded, and that the checkpoint holds in another form."""
    what = (
        f"{counted(len(names), 'matrix', 'matrices')}, such as '{names[0]}', are stored in another form in the "
        "checkpoint: they get the levels of the error search"
    )
    return Notice("weights", "not rounded by gradient", what, "--quality best calibrates experts in every form")


def refuse_missing() -> None:
    """Raise RuntimeMissing where a library is not installed."""
    missing = [name for name in LIBRARIES if installed(name) is None]
    if missing:
        raise RuntimeMissing(
            f"rounding by gradient needs {' and '.join(missing)}, which drupe does not install by default", cure=INSTALL
        )


def refuse_unfit(checkpoint: Checkpoint) -> None:
    """Raise ModelError for a checkpoint that is already quantized, or that is not a folder for transformers."""
    if checkpoint.folder.is_file():
        raise ModelError(
            "a GGUF file cannot be rounded by gradient", where=checkpoint.folder, cure="give the checkpoint"
        )
    if checkpoint.packing is not None:
        raise ModelError(
            "the checkpoint is already quantized, so there is nothing to round",
            where=checkpoint.folder,
            cure="start from the checkpoint in floating point, or leave --quality autoround out",
        )
