"""The error for two models whose vocabularies differ."""

from __future__ import annotations

from drupe.api import ModelError, counted


def refuse_other_vocabulary(ours: int | None, theirs: int | None) -> None:
    """Raise ModelError where package and reference have vocabularies of different sizes."""
    if ours and theirs and ours != theirs:
        raise ModelError(
            f"the package has a vocabulary of {counted(ours, 'token')}, but the reference has {theirs}",
            cure="compare the package with the model that it was made from",
        )
