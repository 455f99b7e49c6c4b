"""Request, Recipe, Step, Plan: from what a user asks for to an ordered, checked list of configured passes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from drupe.errors import PlanError, UsageError, unknown

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from drupe.model import Model
    from drupe.passes import Pass, PassConfig
    from drupe.plugins import Registry
    from drupe.target import ExecutionProvider


MOST_THREADS = 256
VERIFYING = ("evaluation_data", "tokens", "max_kl")
"""Options that the closing comparison with the source reads, whatever the steps do."""


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    options: settings for the plan's passes by name ("quality", "block_size", ...); only those the user gave.
    model_options: settings for finding the model ("revision", "token", "cache_dir").
    threads: 0 stands for all that the process may use.
    """

    reference: str
    output: Path
    provider: str = "cpu"
    precision: str = "int4"
    options: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 0
    verify: bool = True
    force: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.precision, str):
            raise UsageError(f"precision = {self.precision!r} is no name", cure="int4, int8, fp16, bf16 or fp32")
        object.__setattr__(self, "precision", self.precision.lower())
        if not 0 <= self.threads <= MOST_THREADS:
            raise UsageError(f"threads = {self.threads} is not from 0 to {MOST_THREADS}", cure="--threads 0 takes all")


@dataclass(frozen=True)
class Step:
    """A pass by name with its configuration.

    options: for a key of the configuration, the name of the request's option that sets it. when: the step is taken only
    if one of these options has one of these values, None for one that is not given; no values stand for any. A user may
    give an option several values.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    when: Mapping[str, Collection[Any]] = field(default_factory=dict)

    def applies(self, options: Mapping[str, Any]) -> bool:
        """Whether the step is taken for what the user asked for."""
        given = {name: {*several(options.get(name))} for name in self.when}
        taken = (given[name] & {*values} if values else name in options for name, values in self.when.items())
        return not self.when or any(taken)

    def filled(self, options: Mapping[str, Any]) -> Step:
        """This step with what the user asked for in its configuration."""
        asked = {key: options[option] for key, option in self.options.items() if option in options}
        return replace(self, config={**self.config, **asked})


@dataclass(frozen=True)
class Recipe:
    """A named plan of a provider: the steps that make a package of one precision."""

    name: str
    precision: str
    steps: tuple[Step, ...]
    summary: str = ""


@dataclass(frozen=True)
class Plan:
    """An ordered list of passes with their configuration; `check` makes sure that they fit together."""

    steps: tuple[Step, ...]
    recipe: str = ""


@dataclass(frozen=True)
class CheckedStep:
    """A step whose pass was found and whose configuration is valid."""

    runner: Pass
    config: PassConfig


def recipe_for(request: Request, provider: ExecutionProvider) -> Recipe:
    """The provider's own recipe for the precision that is asked for."""
    recipe = next((each for each in provider.recipes() if each.precision == request.precision), None)
    if recipe is None:
        known = dict.fromkeys(each.precision for each in provider.recipes())
        raise UsageError(
            f"the provider '{provider.name}' has no recipe for precision '{request.precision}'",
            cure=f"--precision {' or '.join(known)}",
        )
    return recipe


def several(value: Any) -> tuple[Any, ...]:
    """The values of an option that may have more than one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def propose(request: Request, recipe: Recipe) -> Plan:
    """The steps of a recipe that a request takes, with what the user asked for in their configuration."""
    _refuse_unknown(request, recipe)
    steps = tuple(step for step in recipe.steps if step.applies(request.options))
    _refuse_unused(request, recipe, steps)
    return Plan(tuple(step.filled(request.options) for step in steps), recipe.name)


def _refuse_unknown(request: Request, recipe: Recipe) -> None:
    """A value that no step is taken for, where others are, would leave steps out in silence; refuse it."""
    for option, given in request.options.items():
        known = {each for step in recipe.steps for each in step.when.get(option, ()) if each is not None}
        if known and (wrong := [each for each in several(given) if each not in known]):
            values = sorted(map(str, known))
            cure = f"{_flag(option)} {' or '.join(values)}"
            raise unknown(f"value of {_flag(option)}", str(wrong[0]), values, cure=cure)


def _refuse_unused(request: Request, recipe: Recipe, steps: Iterable[Step]) -> None:
    """An option that no step reads would be ignored in silence; refuse it."""
    known = {option for step in steps for option in (*step.options.values(), *step.when)}
    known.update(VERIFYING if request.verify else ())
    for option in request.options:
        if option not in known:
            import difflib

            ways = dict.fromkeys(
                f"{_flag(name)} {' or '.join(map(str, filter(None, values)))}".rstrip()
                for step in recipe.steps if option in step.options.values() for name, values in step.when.items()
            )  # fmt: skip
            if not ways and (meant := difflib.get_close_matches(option, {*known, *vars(request)}, cutoff=0.8)):
                raise unknown("option", option, meant)
            where = f"without {' or '.join(ways)}" if ways else f"for {request.precision} on {request.provider}"
            where = "with --no-verify" if option in VERIFYING else where
            raise UsageError(f"{_flag(option)} means nothing {where}", cure=f"leave {_flag(option)} out")


def _flag(option: str) -> str:
    """How a user types an option."""
    return "--" + option.replace("_", "-")


def check(plan: Plan, model: Model, registry: Registry) -> list[CheckedStep]:
    """Find each pass, validate its configuration, and follow kind and facts along the chain.

    Raises PlanError or UsageError before anything has run.
    """
    checked = []
    kind, facts = model.kind, dict(model.facts)
    for step in plan.steps:
        runner = registry.passes.make(step.name)
        config = configure(f"pass '{step.name}'", runner.Config, step.config, step.options)
        if runner.requires.kind != kind:
            raise PlanError(
                f"the pass '{step.name}' takes a model of kind '{runner.requires.kind}', not '{kind}'",
                where=names(plan.steps),
                cure="give the checkpoint; drupe inspect MODEL says what a model is",
            )
        for fact, wanted in runner.requires.facts.items():
            if facts.get(fact, wanted) != wanted:
                raise PlanError(
                    f"the pass '{step.name}' needs {fact} = {wanted}, but the model has {fact} = {facts[fact]}",
                    where=names(plan.steps),
                    cure="start from a model for which that holds, or leave out what changes it",
                )
        kind = runner.ensures.kind
        facts.update(runner.ensures.facts)
        checked.append(CheckedStep(runner, config))
    return checked


Config = TypeVar("Config", bound="BaseModel")


def configure(
    owner: str, config: type[Config], values: Mapping[str, Any], options: Mapping[str, str] | None = None
) -> Config:
    """A configuration out of plain values; one error for one cause. owner: whose it is ("pass 'sign'").

    options: for a key, the user's option that sets it; None where each key is an option of its own.
    """
    from pydantic import ValidationError

    for key in values:
        if key not in config.model_fields:
            raise unknown("key", key, config.model_fields, where=f"configuration of the {owner}")
    try:
        return config(**values)
    except ValidationError as error:
        named = dict(zip(values, values, strict=True)) if options is None else options
        option = next((named.get(str(part)) for part in error.errors()[0]["loc"]), None)
        raise UsageError(
            f"the {owner} refuses {_first_message(error)}",
            where=option and _flag(option),
            cure="leave it out for the default",
        ) from error


def _first_message(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{key} = {first['input']!r}: {message}" if key else message


def names(steps: Iterable[Step]) -> str:
    """The names of steps, for a person."""
    return " > ".join(step.name for step in steps)
