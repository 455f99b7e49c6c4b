"""CalibratingPass: what passes that calibrate on a text have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from drupe.api import Context, Model, Pass
from drupe_text.settings import CalibrationConfig
from drupe_text.tokens import TextTokenizer


class CalibratingPass(Pass):
    """A pass over a package that reads a text; one that is too short, or no text, is refused before any pass's work."""

    costly = True
    least_tokens: ClassVar[int | None] = None
    """How many do, where the text has no more; by default all that the configuration asks for are needed."""

    def sequences(self, model: Model, config: CalibrationConfig, context: Context) -> list[list[int]]:
        """The tokens to calibrate on. Raises UsageError for a text that has too few, ModelError without a tokenizer."""
        tokenizer = TextTokenizer.among(model.payload.files, context.scratch)
        return config.calibration_tokens(tokenizer, model.payload.context_length, self.least_tokens)

    def preview(self, model: Model, config: Any, context: Context) -> Model:
        """The model as it is: what is measured does not show yet."""
        self.sequences(model, config, context)
        return model
