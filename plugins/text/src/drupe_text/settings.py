"""Settings that name a text: of passes that calibrate, and of evaluators."""

from __future__ import annotations

import os
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, computed_field

from drupe.api import PassConfig
from drupe_text.text import Text
from drupe_text.tokens import TextTokenizer


def _as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


Reference = Annotated[str | None, BeforeValidator(_as_text)]
"""The type of a setting that names a text; a Path may be given as well."""


class CalibrationConfig(PassConfig):
    """Which text, how much of it, and what was in it: the last is computed, for the cache's keys and the record."""

    calibration_data: Reference = Field(None, description="a text as drupe-text names it; None for Python's own")
    calibration_sequences: int = Field(128, ge=1, description="how many sequences")
    calibration_length: int = Field(512, ge=2, description="tokens of each sequence")
    calibration_seed: int = Field(0, description="which pieces of the text")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def calibration_fingerprint(self) -> str:
        """The SHA-256 of the text."""
        return self.calibration_text.fingerprint

    @property
    def calibration_text(self) -> Text:
        return Text(self.calibration_data, "calibration")

    def calibration_tokens(
        self, tokenizer: TextTokenizer, context_length: int | None = None, least: int | None = None
    ) -> list[list[int]]:
        """The sequences that are asked for; those of the default length are no longer than the model's context.

        least: tokens that do where the text has no more.
        """
        length = self.calibration_length
        if context_length and "calibration_length" not in self.model_fields_set:
            length = min(length, context_length)
        return tokenizer.sequences(
            self.calibration_text, self.calibration_sequences, length, self.calibration_seed, least=least
        )
