"""The options of `drupe finetune` that set a key of its settings: each is derived from the key's field."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from drupe_finetune.settings import FinetuneConfig

OTHER_NAMES: Mapping[str, str] = {
    "template": "--text-template", "column": "--text-field", "max_length": "--max-seq-len",
    "evaluated": "--eval-split", "rank": "--lora-r -r", "alpha": "--lora-alpha", "dropout": "--lora-dropout",
    "targets": "--target-modules",
}  # fmt: skip
"""Names that Olive or peft has for an option, beside the key's own."""
APART = frozenset({"data", "training", "peft"})
"""Keys that are no plain options: the data have to be named, and arguments of the two libraries go through."""


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command whose last parameter is `**settings` an option for each key; None stands for one not given."""
    stated = inspect.signature(command, eval_str=True)
    own = [each for each in stated.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    derived = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in option_types().items()
    ]
    last = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    command.__signature__ = stated.replace(parameters=[*last, *derived])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in (*own, *derived)}
    return command


def option_types() -> dict[str, Any]:
    """The type of each option, with its names and its help; None where it is not given."""
    return {
        name: _annotation(name, field.annotation, f"{field.description}", field.default)
        for name, field in FinetuneConfig.model_fields.items()
        if name not in APART
    }


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that have a value, as a configuration takes them: several names apart."""
    found = {name: value for name, value in settings.items() if value is not None}
    for name, value in found.items():
        if _is_several(FinetuneConfig.model_fields[name].annotation):
            found[name] = tuple(value.replace(",", " ").split())
    return found


def _annotation(name: str, annotation: Any, described: str, default: Any) -> Any:
    plain = _without_none(annotation)
    choices = get_args(plain) if get_origin(plain) is Literal else ()
    several = _is_several(plain)
    taken = str if choices or several else plain
    told = f"{described[:1].upper()}{described[1:]}"
    told += f" ({', '.join(choices)})." if choices else "."
    told += f"  [{default:g}]" if isinstance(default, float) else f"  [{default}]" if default and not several else ""
    metavar = "<name>" if choices else "<names>" if several else None
    names = [f"--{name.replace('_', '-')}", *OTHER_NAMES.get(name, "").split()]
    option = typer.Option(*names, help=told, metavar=metavar, show_default=False)
    return Annotated[Union[taken, None], option]  # noqa: UP007 (made at run time)


def _without_none(annotation: Any) -> Any:
    """The type of a value that may be None."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(each for each in get_args(annotation) if each is not type(None))
    return annotation


def _is_several(annotation: Any) -> bool:
    return get_origin(annotation) is tuple
