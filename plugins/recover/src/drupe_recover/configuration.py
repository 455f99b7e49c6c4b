"""The configuration of recover-scales."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, computed_field

from drupe.api import RuntimeMissing
from drupe_text import CalibrationConfig

INSTALL = "pip install 'drupe[recover]'"


class RecoverConfig(CalibrationConfig):
    """The settings of `recover-scales`."""

    calibration_sequences: int = Field(64, ge=2, description="how many sequences of the text are used")
    calibration_length: int = Field(256, ge=2, description="tokens in each sequence")
    epochs: int = Field(4, ge=1, le=1000, description="how often each block sees the text")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="of relative changes of scales and norms")
    held_out: float = Field(0.25, gt=0, lt=1, description="the share of the text that judges what has been trained")
    device: Literal["cpu", "cuda"] | None = Field(
        None, description="where to compute; by default a GPU if there is one"
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def computed_with(self) -> str:
        """The version of torch, which decides the result, for cache keys and the record."""
        from importlib import metadata

        try:
            return f"torch {metadata.version('torch')}"
        except metadata.PackageNotFoundError:
            return ""


def refuse_missing() -> None:
    """Raise RuntimeMissing where torch is not installed."""
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise RuntimeMissing("training scales needs torch, which drupe does not install by default", cure=INSTALL)
