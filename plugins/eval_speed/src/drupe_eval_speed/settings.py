"""SpeedConfig: on what shapes is measured, how often, and with how many threads."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from drupe.api import EvaluatorConfig
from drupe_timing import ANSWER

BRIEF_REPEATS, BRIEF_ANSWER = 2, 8
"""Runs and tokens of an answer in a brief measurement, where the user names no numbers."""
MOST = 1 << 20
"""Larger numbers of tokens or rows are mistakes."""


def _listed(value: Any) -> Any:
    """A number alone, or numbers in a text ("128,512"), as a list."""
    if isinstance(value, str):
        parts = [each.strip() for each in value.split(",")]
        if strange := [each for each in parts if not each.lstrip("+-").isdecimal()]:
            raise ValueError(f"'{strange[0]}' is no whole number; give numbers with commas between them, as in 128,512")
        return parts
    return [value] if isinstance(value, int) else value


def _once(value: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(value))


Number = Annotated[int, Field(ge=1, le=MOST)]
Numbers = Annotated[
    tuple[Number, ...], Field(min_length=1, max_length=32), BeforeValidator(_listed), AfterValidator(_once)
]


class SpeedConfig(EvaluatorConfig):
    """The cases are all combinations of prompt lengths and batch sizes. A run is one prompt and its answer."""

    prompt_lengths: Numbers | None = Field(
        None,
        description="tokens of a prompt, or of a row of a model that reads tokens; by default 128, or as many as there "
        "is room for",
    )
    batch_sizes: Numbers | None = Field(None, description="rows that are run at once; by default 1")
    sizes: dict[str, Number] = Field(
        default_factory=dict, description="sizes of other axes, by the names that the graph has for them"
    )
    new_tokens: int | None = Field(
        None, ge=2, le=MOST, description="tokens of an answer; by default 64, or as many as there is room for"
    )
    repeats: int = Field(7, ge=1, le=1000, description="runs of each case, and loads; the median counts")
    brief: bool = Field(
        False,
        description=f"whether to measure briefly, to see what is worth a full measurement: {BRIEF_REPEATS} runs, and "
        f"answers of {BRIEF_ANSWER} tokens, where no other numbers are given",
    )
    threads: int = Field(0, ge=0, le=1024, description="threads of the processor; 0 for the package's own number")

    @property
    def runs(self) -> int:
        """Runs of each case, and loads."""
        return BRIEF_REPEATS if self.brief and "repeats" not in self.model_fields_set else self.repeats

    @property
    def usual_answer(self) -> int:
        """Tokens of an answer where there is room for them, and the user names no number."""
        return BRIEF_ANSWER if self.brief else ANSWER
