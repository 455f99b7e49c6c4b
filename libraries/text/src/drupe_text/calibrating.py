"""CalibratingPass: the base of passes that calibrate on a text."""

from __future__ import annotations

from typing import Any, ClassVar

from drupe.api import Context, Model, Pass
from drupe_text.settings import CalibrationConfig
from drupe_text.tokens import TextTokenizer


class CalibratingPass(Pass):
    """A pass over a package that reads a text. A text that is missing or too short is refused before any pass runs."""

    costly = True
    grows_with = "the amount of text"
    least_tokens: ClassVar[int | None] = None
    """How many tokens are enough where the text has no more; by default all that the configuration asks for."""

    def sequences(self, model: Model, config: CalibrationConfig, context: Context) -> list[list[int]]:
        """The tokens to calibrate on. Raises UsageError for a text with too few, ModelError for a missing tokenizer."""
        tokenizer = TextTokenizer.among(model.payload.files, context.scratch)
        return config.calibration_tokens(tokenizer, model.payload.context_length, self.least_tokens)

    def preview(self, model: Model, config: Any, context: Context) -> Model:
        """The unchanged model: a preview does not show measurements."""
        self.sequences(model, config, context)
        return model
