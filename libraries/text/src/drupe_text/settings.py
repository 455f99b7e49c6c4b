"""Settings that name a text, for passes that calibrate and for evaluators."""

from __future__ import annotations

import os
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, computed_field

from drupe.api import PassConfig
from drupe_text.reference import absolute
from drupe_text.text import Text
from drupe_text.tokens import TextTokenizer


def _from_the_root(value: Any) -> Any:
    """A reference with an absolute path, so a plan names the same text in any working folder."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    return absolute(text) if isinstance(text, str) else text


Reference = Annotated[str | None, BeforeValidator(_from_the_root)]
"""The type of a setting that names a text. A Path may be given as well. Paths are stored as absolute paths."""


class CalibrationConfig(PassConfig):
    """Which text, how much of it, and the SHA-256 of its content, which is computed for cache keys and the record."""

    calibration_data: Reference = Field(
        None, description="the text: a file, folder or data set; by default Python's own documentation and modules"
    )
    calibration_sequences: int = Field(128, ge=1, description="how many sequences of the text are used")
    calibration_length: int = Field(512, ge=2, description="tokens in each sequence")
    calibration_seed: int = Field(0, ge=0, description="the seed that chooses pieces of the text")

    # The cache's keys hold the digest instead of the text's place.
    @computed_field(json_schema_extra={"stands_for": "calibration_data"})  # type: ignore[prop-decorator]
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
        """The sequences that the settings ask for. Sequences of the default length are cut to the model's context.

        least: how many tokens are enough where the text has no more.
        """
        length = self.calibration_length
        if context_length and "calibration_length" not in self.model_fields_set:
            length = min(length, context_length)
        return tokenizer.sequences(
            self.calibration_text, self.calibration_sequences, length, self.calibration_seed, least=least
        )
