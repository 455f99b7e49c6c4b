"""The pass `round-by-gradient`."""

from __future__ import annotations

from importlib import metadata
from typing import Literal

from pydantic import Field, computed_field

from drupe.api import Context, Model, ModelError, Pass, RuntimeMissing, Shape
from drupe_huggingface import Checkpoint
from drupe_text import CalibrationConfig, TextTokenizer

LIBRARIES = ("auto-round", "safetensors", "torch", "transformers")
INSTALL = "pip install 'drupe[autoround]'"


class RoundByGradientConfig(CalibrationConfig):
    """What AutoRound can be told. Its authors' default is 200 iterations on 128 sequences of 2,048 tokens."""

    bits: Literal[2, 4] = Field(4, description="bits of a weight")
    block_size: Literal[16, 32, 64, 128, 256] = Field(128, description="weights that share a scale")
    symmetric: bool = Field(False, description="without zero points")
    iterations: int = Field(200, ge=1, description="steps of gradient descent for each decoder block")
    batch_size: int = Field(8, ge=1, description="sequences of a step")
    device: Literal["cpu", "cuda"] | None = Field(None, description="where it computes; by default a GPU, if there is")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def computed_with(self) -> str:
        """The libraries that decide the result, for the cache's keys and the record; those that are installed."""
        return ", ".join(f"{name} {version}" for name in LIBRARIES if (version := _version(name)))


class RoundByGradient(Pass):
    """AutoRound (https://arxiv.org/abs/2309.05516): each weight is rounded up or down as signed gradient descent on the
    output error of its decoder block finds best, and the range of each block of weights with it.

    The matrices of the decoder blocks come out packed, in GPTQ's layout; `quantize-weights` takes their levels over.
    Everything else of the checkpoint stays as it is.
    """

    name = "round-by-gradient"
    summary = "rounds weights by gradient descent on text (AutoRound); wants a GPU, and time"
    revision = 2
    Config = RoundByGradientConfig
    requires = ensures = Shape("hf")
    costly = True

    def preview(self, model: Model, config: RoundByGradientConfig, context: Context) -> Model:
        """The checkpoint: what is rounded keeps its names and shapes."""
        return model

    def run(self, model: Model, config: RoundByGradientConfig, context: Context) -> Model:
        refuse_missing()
        checkpoint: Checkpoint = model.payload or Checkpoint.open(model.location)
        refuse_unfit(checkpoint)
        checkpoint.fetch_weights()
        sequences = config.calibration_tokens(TextTokenizer(checkpoint.folder))

        from drupe_quant_autoround.tuning import tune
        from drupe_quant_autoround.writing import write_checkpoint

        layers = tune(checkpoint, sequences, config, context)
        folder = context.scratch / "checkpoint"
        write_checkpoint(folder, checkpoint, layers, config, context)
        return model.but(location=folder, payload=Checkpoint.open(folder))


def refuse_missing() -> None:
    """Raise RuntimeMissing where a library is not installed."""
    missing = [name for name in LIBRARIES if _version(name) is None]
    if missing:
        raise RuntimeMissing(
            f"rounding by gradient needs {' and '.join(missing)}, which drupe does not bring by default", cure=INSTALL
        )


def refuse_unfit(checkpoint: Checkpoint) -> None:
    """Raise ModelError for a checkpoint that is quantized already, or that transformers does not load as a folder."""
    if checkpoint.folder.is_file():
        raise ModelError(
            "a GGUF file cannot be rounded by gradient", where=checkpoint.folder, cure="give the checkpoint"
        )
    if checkpoint.packing is not None:
        raise ModelError(
            "the checkpoint is quantized already, so there is nothing to round",
            where=checkpoint.folder,
            cure="start from the checkpoint in floating point, or leave --quality autoround out",
        )


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
