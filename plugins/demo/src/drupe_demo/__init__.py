"""The demo model: a checkpoint of a few megabytes that needs no download, and the text to measure it with."""

from __future__ import annotations

from pathlib import Path

__all__ = ["HELDOUT", "MODEL", "QUESTIONS", "QUESTIONS_HELDOUT"]

_HERE = Path(__file__).resolve().parent

MODEL: Path = _HERE / "model"
"""The checkpoint, in the layout of a Hugging Face model folder."""

HELDOUT: Path = _HERE / "heldout.txt"
"""Text that the model was not trained on, to measure its quality with."""

QUESTIONS: Path = _HERE / "questions.jsonl"
"""200 rows to learn from: questions about Python's built-in functions, with their answers."""

QUESTIONS_HELDOUT: Path = _HERE / "questions_heldout.txt"
"""The same questions about other names, in the form in which they are learned."""
