"""Checking: find the passes of a plan, make their configurations, and follow kind, parts and facts along the chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from drupe.containment import Plugin, call, one_line
from drupe.contracts.evaluator import Evaluator
from drupe.contracts.pass_ import Pass, PassConfig
from drupe.errors import PlanError, UsageError, unknown
from drupe.registry import Registry, refuse_unknown_facts
from drupe.values.model import Form, Model
from drupe.values.plan import Plan, PlannedPass
from drupe.values.record import Record

Config = TypeVar("Config", bound=BaseModel)
BOUNDS = (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most"))
OF_RANGES = ("_than", "_than_equal", "finite_number")


class ReadyPass(Record):
    """A pass of a plan that was found, with its configuration made and checked."""

    planned: PlannedPass
    runner: Pass
    config: PassConfig
    plugin: Plugin

    @property
    def is_foreseen(self) -> bool:
        """Whether it is known without the pass's work what it makes."""
        return not self.runner.costly or type(self.runner).preview is not Pass.preview


def make_ready(planned: PlannedPass, found: Registry, named: Mapping[str, str] | None = None) -> ReadyPass:
    """Find a pass and make its configuration. named: for a key, how the user set it."""
    entry = found.passes.find(planned.name)
    runner = entry.make()
    for form in (runner.requires, runner.ensures):
        refuse_unknown_facts(form, entry.title, found)
    config = call(entry.plugin, entry.title, configure, f"pass '{planned.name}'", runner.Config, planned.config, named)
    return ReadyPass(planned, runner, config, entry.plugin)


def check(plan: Plan, source: Model, found: Registry) -> tuple[ReadyPass, ...]:
    """Find each pass, validate its configuration, and follow kind, parts and facts along the chain.

    Raises PlanError or UsageError before anything has run.
    """
    ready, model = [], source
    for planned in plan.passes:
        step = make_ready(planned, found)
        model = follow(step, model, found, plan.chain)
        ready.append(step)
    return tuple(ready)


def follow(step: ReadyPass, model: Model, found: Registry, chain: str) -> Model:
    """What a pass makes of a model, as far as kind and facts tell. Raises PlanError where it does not take it."""
    name, requires, ensures = step.planned.name, step.runner.requires, step.runner.ensures
    if requires.kind != model.kind:
        raise PlanError(
            f"the pass '{name}' takes a model of kind '{requires.kind}', not '{model.kind}'",
            where=chain,
            cure=f"run one that makes it before: drupe optimize --passes PASS,{name}; drupe passes lists them",
        )
    if strange := [role for role in step.planned.parts if role not in model.parts]:
        raise unknown("part of the model", strange[0], model.parts, where=chain)
    roles = step.planned.parts or tuple(model.parts)
    for role in roles:
        _refuse_unmet(name, requires, role, model, found, chain)
    made = {role: {**model.parts[role], **ensures.stated} for role in roles}
    return model.but(kind=ensures.kind, parts={**model.parts, **made})


def _refuse_unmet(name: str, requires: Form, role: str, model: Model, found: Registry, chain: str) -> None:
    for fact, wanted in requires.facts.items():
        allowed = (wanted,) if isinstance(wanted, str) else wanted
        held = model.parts[role].get(fact, found.facts[fact].default)
        if held not in allowed:
            of = "the model" if len(model.parts) == 1 else f"the part '{role}'"
            states = f"has {fact} = {held}" if held is not None else f"does not state {fact}"
            raise PlanError(
                f"the pass '{name}' needs {fact} = {' or '.join(allowed)}, but {of} {states}",
                where=chain,
                cure="start from a model for which that holds, or leave out what changes it",
            )


def configure(
    owner: str, config: type[Config], values: Mapping[str, Any], named: Mapping[str, str] | None = None
) -> Config:
    """A configuration out of plain values; one error for one cause. owner: whose it is ("pass 'sign'").

    named: for a key, how the user has set it ("--block-size").
    """
    for key in values:
        if key not in config.model_fields:
            raise unknown(f"key of the {owner}", key, config.model_fields, where=(named or {}).get(key))
    try:
        (made := config(**values)).model_dump(mode="json", round_trip=True)  # as plans and records have it
        return made
    except ValidationError as error:
        first = error.errors()[0]
        where = next((place for part in first["loc"] if (place := (named or {}).get(str(part)))), None)
        key, said = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        limits = _range(config, key) if first["type"].endswith(OF_RANGES) else ""
        message = limits or said.replace("Input should be", "it must be")
        shown = "" if first["type"] == "missing" else f" = {one_line(first['input'])}"
        what = f"{key}{shown}: {message}" if key else message
        cure = "leave it out for the default" if shown else "give it a value"
        # Several passes may read one option; the user who typed it need not know them.
        raise UsageError(what if where else f"the {owner} refuses {what}", where=where, cure=cure) from error


def _range(config: type[BaseModel], key: str) -> str:
    """The range that a number has to be in, in words, with the field's examples; "" where that is not stated."""
    stated = getattr(field := config.model_fields.get(key), "metadata", ())
    limits = [f"{words} {getattr(each, bound)}" for each in stated for bound, words in BOUNDS if hasattr(each, bound)]
    like = "".join(f", such as {each}" for each in getattr(field, "examples", None) or ())
    return f"it must be {' and '.join(limits)}{like}" if limits else ""


def evaluator_of(named: str, task: str | None, found: Registry) -> Evaluator | None:
    """The evaluator that is named, else the task's own; None where there is none, or it is not installed."""
    if named:
        return found.evaluators.make(named)
    own = found.tasks.make(task).evaluator if task is not None and task in found.tasks else None
    return found.evaluators.make(own) if own is not None and own in found.evaluators else None
