"""Settings of a search: how it goes on, when it ends, and what it is after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from drupe.api import UsageError, unknown

DEFAULT_TRIALS = 30
DEFAULT_FINALISTS = 3
Sampler = Literal["tpe", "nsga2", "random", "grid"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Goal(_Part):
    """A metric that is to be good, and limits for it.

    A relative limit is a difference from the first trial, which has the first value of each list: `max_worse: 0.1`
    allows a metric to be worse by 0.1, `max_worse: 5%` by 5 percent; `min_better` asks for an improvement.
    """

    metric: str = Field(description="bytes, conversion_seconds, or a metric of an evaluator: kl_divergence")
    better: Literal["lower", "higher", ""] = Field(default="", description="the direction; else as the evaluator says")
    min: float | None = Field(default=None, description="the least value that is accepted")
    max: float | None = Field(default=None, description="the greatest value that is accepted")
    max_worse: float | str | None = Field(
        default=None, description="how much worse than the first trial is accepted: 0.1, 5%"
    )
    min_better: float | str | None = Field(
        default=None, description="how much better than the first trial it has to be"
    )
    optimize: bool = Field(default=True, description="whether it is optimized, or only has to keep to its limits")


def _as_goal(value: Any) -> Any:
    return {"metric": value} if isinstance(value, str) else value


def _as_executor(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _as_evaluators(value: Any) -> Any:
    """A name, or a list of names and of names with their settings, as one mapping; anything else as it is."""
    found: dict[str, Any] = {}
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            found[each] = {}
        elif isinstance(each, Mapping):
            found |= each
        else:
            return value
    return found


class SearchSettings(_Part):
    """The key `search` of a workflow."""

    sampler: Sampler = Field(default="tpe", description="tpe, nsga2, random, or grid (each combination once)")
    trials: int | None = Field(
        default=None, ge=1, description=f"how many trials; {DEFAULT_TRIALS} where no time is given"
    )
    seconds: float | None = Field(default=None, gt=0, description="after how long no more trials begin")
    seed: int = Field(default=0, ge=0, description="of the sampler")
    order: Literal["joint", "pass-by-pass"] = Field(
        default="joint", description="all values at once, or those of one pass after the other"
    )
    evaluators: Annotated[dict[str, dict[str, Any]], BeforeValidator(_as_evaluators)] = Field(
        default_factory=dict, description="what measures besides the task's own: names, or names with their settings"
    )
    measuring: Literal["brief", "full"] = Field(
        default="brief",
        description="brief: trials share what is equal, are measured briefly, and the best ones in full at the end; "
        "full: each trial is measured in full, and shares nothing",
    )
    finalists: int = Field(
        default=DEFAULT_FINALISTS, ge=1, description="how many of the best trials are measured in full at the end"
    )
    together: dict[str, list[dict[str, Any]]] = Field(
        default_factory=dict,
        description="by a name, choices that set several places at once: mappings of places, with dots, to values",
    )
    executor: Annotated[dict[str, Any], BeforeValidator(_as_executor)] = Field(
        default_factory=dict, description="where trials run, if not in this process: a name, or a name with settings"
    )
    goals: tuple[Annotated[Goal, BeforeValidator(_as_goal)], ...] = Field(
        default=(), description="what is optimized; by default bytes and the first metric of each evaluator"
    )

    @property
    def is_brief(self) -> bool:
        return self.measuring == "brief"

    @property
    def shares(self) -> bool:
        """Whether trials take over what is equal in earlier ones. How long a conversion takes is then not measured."""
        return self.is_brief and all(goal.metric != "conversion_seconds" for goal in self.goals)

    @property
    def is_relative(self) -> bool:
        """Whether a limit refers to the first trial."""
        return any(goal.max_worse is not None or goal.min_better is not None for goal in self.goals)

    @property
    def number_of_trials(self) -> int | None:
        return self.trials if self.trials or self.seconds else DEFAULT_TRIALS


def settings_from(value: Any) -> SearchSettings:
    """The settings in a workflow. Raises UsageError that names the place of what is wrong."""
    try:
        return SearchSettings.model_validate({} if value is None else value)
    except ValidationError as error:
        first = error.errors()[0]
    place = [each for each in first["loc"] if isinstance(each, int) or not each.startswith("function-")]
    where = ".".join(["search", *map(str, place)])
    if first["type"] == "extra_forbidden":
        owner = Goal if place[0] == "goals" else SearchSettings
        raise unknown("key", str(place[-1]), list(owner.model_fields), where=where)
    raise UsageError(f"{first['input']!r} does not fit: {first['msg']}", where=where)


def difference(limit: float | str, base: float, where: str) -> float:
    """A relative limit as a number: `0.1`, or `5%` of a base. Raises UsageError for anything else."""
    if isinstance(limit, int | float):
        return float(limit)
    try:
        return abs(base) * float(limit.removesuffix("%")) / 100 if limit.endswith("%") else float(limit)
    except ValueError:
        raise UsageError(f"{limit!r} is neither a number nor a percentage", where=where, cure="0.1, or 5%") from None


def as_mapping(settings: SearchSettings) -> Mapping[str, Any]:
    return settings.model_dump(mode="json", exclude_unset=True)
