"""The configuration of round-by-gradient, with the versions of the libraries that decide its result."""

from __future__ import annotations

from importlib import metadata
from typing import Literal

from pydantic import Field, computed_field

from drupe_text import CalibrationConfig

LIBRARIES = ("auto-round", "safetensors", "torch", "transformers")


class RoundByGradientConfig(CalibrationConfig):
    """The settings of AutoRound. Its authors' default is 200 iterations on 128 sequences of 2,048 tokens."""

    bits: Literal[2, 4] = Field(4, description="bits of a weight")
    block_size: Literal[16, 32, 64, 128, 256] = Field(128, description="how many weights share a scale")
    symmetric: bool = Field(False, description="without zero points")
    iterations: int = Field(200, ge=1, le=100_000, description="steps of gradient descent for each decoder block")
    batch_size: int = Field(8, ge=1, le=4096, description="sequences in each step")
    device: Literal["cpu", "cuda"] | None = Field(
        None, description="where to compute; by default a GPU if there is one"
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def computed_with(self) -> str:
        """The versions of the installed libraries that decide the result, for cache keys and the record."""
        return ", ".join(f"{name} {version}" for name in LIBRARIES if (version := installed(name)))


def installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
