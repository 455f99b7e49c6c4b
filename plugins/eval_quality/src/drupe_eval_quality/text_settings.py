"""TextSettings: which text an evaluator reads."""

from __future__ import annotations

from pydantic import Field, computed_field

from drupe.api import EvaluatorConfig
from drupe_text import Reference, Text


class TextSettings(EvaluatorConfig):
    """Which text, and the SHA-256 of its content, which is computed for the record."""

    evaluation_data: Reference = Field(
        None, description="the text: a file, folder or data set; by default drupe's built-in short text"
    )
    seed: int | None = Field(
        None, ge=0, description="a number that chooses pieces of the text; by default its beginning"
    )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def evaluation_fingerprint(self) -> str:
        """The SHA-256 of the text."""
        return Text(self.evaluation_data).fingerprint
