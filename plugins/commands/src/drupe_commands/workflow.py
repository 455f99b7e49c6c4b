"""Workflow: what a user wants done, as a file: a model, a target, options, passes, an output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from drupe.api import Option, Registry, Request, Step, UsageError, unknown
from drupe_commands.wanted_values import wanted_in_place

AS_TYPED = ConfigDict(coerce_numbers_to_str=True)
"""A number is as good as its digits, as on the command line: `target_size: 250000000`."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkflowModel(_Part):
    """What is optimized. Other keys are options that say how it is found: revision, cache_dir, ..."""

    model_config = ConfigDict(frozen=True, extra="allow")
    reference: str = Field(description="a checkpoint's folder, a hub id, or what else installed plugins know")


class WorkflowTarget(_Part):
    """What it is made for."""

    provider: str = Field(default="", description="execution provider; without one, what this machine has")
    precision: str = Field(
        default="int4", description="int4, int8, fp16, bf16, fp32, or what else the provider has recipes for"
    )


class WorkflowPass(_Part):
    """A pass with the keys of its configuration that are set. parts: roles of the model's parts; empty for all."""

    name: str
    config: dict[str, Any] = Field(default_factory=dict)
    parts: tuple[str, ...] = ()


def _as_model(value: Any) -> Any:
    return {"reference": value} if isinstance(value, str) else value


def _as_target(value: Any) -> Any:
    return {"provider": value} if isinstance(value, str) else value


def _as_evaluators(value: Any) -> Any:
    """A list of names, or names with settings."""
    return {name: {} for name in value} if isinstance(value, list) else value


def _as_pass(value: Any) -> Any:
    """`build-decoder`, `{quantize-weights: {block_size: 64}}`, or all keys written out."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and len(value) == 1 and "name" not in value:
        ((name, config),) = value.items()
        return {"name": name, "config": {} if config is None else config}
    return value


EITHER: Mapping[tuple[object, int], str] = {
    ("model", 1): "a text or ",
    ("target", 1): "a text or ",
    ("passes", 2): "a name or ",
    ("measure", 1): "a list or ",
}
"""By the first key of a place and how deep the place is, what it takes beside a mapping of keys."""
MeasureForms = list[str] | dict[str, dict[str, Any]]
PassForms = str | dict[str, dict[str, Any]] | WorkflowPass


class Workflow(_Part):
    """A run of Drupe. Paths are relative to the working directory, as they are on the command line."""

    model: Annotated[
        WorkflowModel | None, BeforeValidator(_as_model, json_schema_input_type=str | WorkflowModel | None)
    ] = Field(default=None, description="what is optimized: a folder, a file or a hub id; --model names another one")
    target: Annotated[WorkflowTarget, BeforeValidator(_as_target, json_schema_input_type=str | WorkflowTarget)] = Field(
        default_factory=lambda: WorkflowTarget(), description="what it is made for: a provider's name, or all keys"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="options as drupe optimize --help lists them, with underscores: block_size"
    )
    passes: tuple[Annotated[WorkflowPass, BeforeValidator(_as_pass, json_schema_input_type=PassForms)], ...] = Field(
        (), description="the passes to run, in this order, instead of those of the target's recipe"
    )
    settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="keys of passes and of the evaluator, by its name; others stay",
    )
    exporter: str = Field(default="", description="what turns the model into a graph, by name")
    evaluator: str = Field(
        default="", description="what compares the package with its source; else as the model's task says"
    )
    threads: int = Field(default=0, ge=0, le=256, description="0 stands for all that the process may use")
    verify: bool = Field(default=True, description="run the finished package, and compare it with its source")
    require_check: bool = Field(default=False, description="fail where the package could not be run or compared")
    measure: Annotated[
        dict[str, dict[str, Any]], BeforeValidator(_as_evaluators, json_schema_input_type=MeasureForms)
    ] = Field(
        default_factory=dict,
        description="evaluators that measure the finished package: NAME or NAME:METRIC, or these with their settings",
    )
    search: dict[str, Any] = Field(
        default_factory=dict,
        description="how values are tried, where several stand in place of one: sampler, trials, seconds, goals, ...",
    )
    output: str = Field(default="", description="folder to make; -o names another one")


def workflow_from(document: Mapping[str, Any], file: str) -> Workflow:
    """The workflow in a file. Raises UsageError that names the place of what is wrong, and the nearest known key."""
    try:
        return Workflow.model_validate(document)
    except ValidationError as error:
        raise _first(error, file) from None


def request_of(workflow: Workflow, found: Registry, file: str) -> Request:
    """What a workflow asks for. Raises UsageError for an option that no plugin declares, or of another type."""
    assert workflow.model is not None
    sources = {name: option for name, option in found.options.items() if option.source}
    finding = _options(workflow.model.model_extra or {}, sources, f"{file}, at model")
    if workflow.target.provider:
        _refuse_unknown_provider(workflow.target.provider, found, f"{file}, at target.provider")
    options = _options(workflow.options, found.options, f"{file}, at options")
    for at, step in enumerate(workflow.passes):
        _refuse_unknown_keys(step.name, step.config, found, f"{file}, at passes.{at}")
    for name, settings in workflow.settings.items():
        _refuse_unknown_keys(name, settings, found, f"{file}, at settings.{name}")
    return Request(
        reference=workflow.model.reference,
        provider=workflow.target.provider,
        precision=workflow.target.precision,
        options={**options, **finding},
        passes=tuple(Step(each.name, each.config, parts=each.parts) for each in workflow.passes),
        settings=workflow.settings,
        claims={"import": workflow.exporter} if workflow.exporter else {},
        evaluator=workflow.evaluator,
        threads=workflow.threads,
        verify=workflow.verify,
        require_check=workflow.require_check,
    )


def _options(values: Mapping[str, Any], declared: Mapping[str, Option], place: str) -> dict[str, Any]:
    """Options with their values in the types that they are declared with."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name not in declared:
            raise unknown("option", name, declared, where=f"{place}.{name}", cure="drupe optimize --help lists them")
        option = declared[name]
        wanted: Any = list[option.type] if option.multiple else option.type  # type: ignore[name-defined]
        given = [value] if option.multiple and not isinstance(value, list) else value
        try:
            found[name] = TypeAdapter(wanted, config=AS_TYPED).validate_python(given)
        except ValidationError as error:
            raise UsageError(wanted_in_place(error.errors()[0]), where=f"{place}.{name}") from None
        try:
            option.refuse(found[name])
        except UsageError as error:
            error.where = f"{place}.{name}"
            raise
    return found


def _refuse_unknown_provider(name: str, found: Registry, place: str) -> None:
    try:
        found.providers.find(name)
    except UsageError as error:
        error.where = place
        raise


def _refuse_unknown_keys(name: str, config: Mapping[str, Any], found: Registry, place: str) -> None:
    """Raise UsageError for a pass or evaluator that is not installed, and for a key that it does not have."""
    kind, catalogue = ("evaluator", found.evaluators) if name in found.evaluators else ("pass", found.passes)
    try:
        keys = catalogue.find(name).resolve().Config.model_fields
    except UsageError as error:
        error.where = place
        raise
    for key in config:
        if key not in keys:
            raise unknown(f"key of the {kind} '{name}'", key, keys, where=f"{place}.{key}")


def _first(error: ValidationError, file: str) -> UsageError:
    """One error for one cause: the first that pydantic has found."""
    first = error.errors()[0]
    place = tuple(each for each in first["loc"] if isinstance(each, int) or not each.startswith("function-"))
    where = f"{file}, at {'.'.join(map(str, place))}"
    if first["type"] == "extra_forbidden":
        return unknown("key", str(place[-1]), _keys_at(place[:-1]), where=where)
    if first["type"] == "missing":
        cure = "make each pass an entry of its own" if place[0] == "passes" else None
        at = f"{file}, at {'.'.join(map(str, place[:-1]))}"
        return UsageError(f"the key '{place[-1]}' is missing", where=at, cure=cure)
    takes = EITHER.get((place[0], len(place)), "") if place else ""
    return UsageError(wanted_in_place(first, takes), where=where)


def _keys_at(place: tuple[int | str, ...]) -> list[str]:
    """The keys that there are at a place in a workflow."""
    owner: type[BaseModel] = Workflow
    for part in place:
        if isinstance(part, str) and part in owner.model_fields:
            owner = _model_in(owner.model_fields[part].annotation) or owner
    return list(owner.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each))), None)
