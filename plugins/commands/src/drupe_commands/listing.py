"""Lists of what is installed: `drupe passes`, `providers`, `evaluators`, `tasks` and `runtimes`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import typer

from drupe_commands.messages import installable
from drupe_commands.showing import AsJson, print_facts, print_json, print_records

if TYPE_CHECKING:
    from pydantic import BaseModel

    from drupe.api import Entry, ExecutionProvider, Form, Pass, Plugin, Recipe, Registry, Stage, Step

Name = Annotated[str | None, typer.Argument(help="Show this one in full.")]


def passes(name: Name = None, as_json: AsJson = False) -> None:
    """List passes, or show what one needs, gives and can be told."""
    from drupe.api import registry

    found = registry()
    if name is None:
        _list("pass", found.passes, as_json)
        return
    entry = found.passes.find(name)
    runner = entry.resolve()
    facts = {
        "brought by": entry.plugin.title,
        "revision": runner.revision,
        "takes": _form(runner.requires),
        "gives": _form(runner.ensures),
        "parts": "all at once" if runner.whole else "one by one",
        "cached": runner.costly,
        **_added_choices(entry, found),
    }
    setting = _options_of_pass(entry, runner.Config, found)
    _show_one(name, entry.ref.summary, facts, {"configuration": _keys(runner.Config, setting)}, as_json)


def _added_choices(entry: Entry[Any], found: Registry) -> dict[str, list[str]]:
    """The choices that the plugin of a pass adds to options of others, with their help; nothing where it adds none."""
    added = [
        f"{option.flag} {choice}: {option.help}"
        for declared in found.owners.values()
        for option, owner in declared
        if owner is entry.plugin and option.extends
        for choice in option.choices
    ]
    return {"choices of its plugin": added} if added else {}


def evaluators(name: Name = None, as_json: AsJson = False) -> None:
    """List evaluators, or show what one can be told."""
    from drupe.api import flag, registry
    from drupe_functions import know

    found = registry()
    if name is None:
        _list("evaluator", found.evaluators, as_json)
        return
    know(name, found)
    entry = found.evaluators.find(name)
    kind = entry.resolve()
    facts = {
        "brought by": entry.plugin.title,
    }
    setting = {key: flag(option) for key, option in kind.options.items()}
    metrics = [{"metric": metric, "meaning": meaning} for metric, meaning in kind.metrics.items()]
    tables = {"metrics": metrics, "configuration": _keys(kind.Config, setting)}
    _show_one(name, entry.ref.summary, facts, tables, as_json)


def tasks(name: Name = None, as_json: AsJson = False) -> None:
    """List tasks, or show what one offers."""
    from drupe.api import registry

    found = registry()
    if name is None:
        _list("task", found.tasks, as_json)
        return
    entry = found.tasks.find(name)
    task = entry.resolve()
    facts = {"brought by": entry.plugin.title, "compared by": task.evaluator}
    offers = [{"a session can": method, "what it does": what} for method, what in task.offers.items()]
    _show_one(name, entry.ref.summary, facts, {"offers": offers}, as_json)


def runtimes(name: Name = None, as_json: AsJson = False) -> None:
    """List runtimes, or show one; drupe providers NAME shows the runtimes of a provider."""
    from drupe.api import registry

    found = registry()
    if name is None:
        records = [{**_line("runtime", entry), "runtime version": _version(entry)} for entry in found.runtimes]
        _print(records, as_json)
        return
    entry = found.runtimes.find(name)
    facts = {
        "brought by": entry.plugin.title,
        "runtime": _version(entry),
        "distributions": list(entry.resolve().distributions),
    }
    _show_one(name, entry.ref.summary, facts, {}, as_json)


def providers(name: Name = None, as_json: AsJson = False) -> None:
    """List execution providers, or show the recipes, devices and limits of one."""
    from drupe.api import registry

    found = registry()
    if name is None:
        _print([_listed(entry, found) for entry in list(found.providers)], as_json)
        return
    provider = found.provider(name)
    entry = found.providers.find(provider.name)
    facts = _about_provider(provider, entry, found)
    _show_one(provider.name, entry.ref.summary, facts, {"recipes": _recipes(provider, entry)}, as_json)


def _list(what: str, entries: Any, as_json: bool) -> None:
    _print([_line(what, entry) for entry in entries], as_json)


def _line(what: str, entry: Entry[Any]) -> dict[str, Any]:
    return {what: entry.ref.name, "brought by": entry.plugin.title, "what it is": entry.ref.summary}


def _print(records: list[dict[str, Any]], as_json: bool) -> None:
    (print_json if as_json else print_records)(records)


def _show_one(
    name: str, summary: str, facts: dict[str, Any], tables: dict[str, list[dict[str, Any]]], as_json: bool
) -> None:
    """Something in full: its facts, and its records by label, each of which is a table."""
    if as_json:
        print_json({"name": name, "summary": summary, **facts, **tables})
        return
    print(f"{name}: {summary}\n")
    print_facts(facts)
    for records in filter(None, tables.values()):
        print()
        print_records(records)


def _keys(config: type[BaseModel], setting: dict[str, str]) -> list[dict[str, Any]]:
    """The keys of a configuration. setting: for a key, the flag that sets it."""
    return [
        {
            "key": key,
            "type": _type(field.annotation),
            "default": None if field.is_required() else field.get_default(call_default_factory=True),
            "set by": setting.get(key),
            "meaning": field.description or "",
        }
        for key, field in config.model_fields.items()
    ]


def _options_of_pass(entry: Entry[Pass], config: type[BaseModel], found: Registry) -> dict[str, str]:
    """For keys of a pass, the flag that sets it: the option of the key's name, or what its plugin's provider says.

    Other plugins' providers are not imported for it: the pass is theirs to use, and `drupe providers NAME` tells how.
    """
    from drupe.api import flag

    alike = {key: flag(key) for key in config.model_fields if key in found.options}
    stated = {
        key: flag(option)
        for provider in _providers_of(entry.plugin, found)
        for recipe in provider.recipes()
        for step in recipe.stages
        if step.name == entry.ref.name
        for key, option in _options_of_step(step).items()
    }
    return {**alike, **stated}


def _providers_of(plugin: Plugin, found: Registry) -> Iterator[ExecutionProvider]:
    """The providers that a plugin brings; `drupe plugins` tells of those that are broken."""
    from drupe.api import PluginError, checked_provider

    for entry in found.providers:
        if entry.plugin is plugin:
            with contextlib.suppress(PluginError):
                yield checked_provider(entry, found)


def _options_of_step(each: Stage | Step) -> Mapping[str, str]:
    """For keys of a step, the option that sets it; a stage has none."""
    from drupe.api import Step

    return each.options if isinstance(each, Step) else {}


def _listed(entry: Entry[ExecutionProvider], found: Registry) -> dict[str, Any]:
    """A provider in a line; for one that cannot be used, why."""
    from drupe.api import DrupeError, checked_provider, target_of

    line = {"provider": entry.ref.name, "brought by": entry.plugin.title, "device": None}
    try:
        device = target_of(checked_provider(entry, found), found).device
        return {**line, "device": device.name if device else None, "what it is": entry.ref.summary}
    except DrupeError as error:
        where = f" ({error.where})" if error.where else ""
        cure = f"; {error.cure}" if error.cure else ""
        return {**line, "what it is": f"cannot be used: {error.what}{where}{installable(cure)}"}


def _about_provider(provider: ExecutionProvider, entry: Entry[Any], found: Registry) -> dict[str, Any]:
    from drupe.api import call, target_of

    target = target_of(provider, found)
    return {
        "brought by": entry.plugin.title,
        "runtime name": provider.runtime_name,
        "also called": [name for name in entry.ref.also if name != provider.runtime_name],
        "kind of device": entry.ref.device or None,
        "device": target.device.name if target.device else None,
        "free memory": target.device.memory if target.device else None,
        "runtime": target.runtime_version or None,
        "runtimes": [package.runtime for package in provider.packages],
        "installed by": target.install or None,
        **call(entry.plugin, f"describe() of {entry.title}", lambda: dict(provider.describe())),
    }


def _recipes(provider: ExecutionProvider, entry: Entry[Any]) -> list[dict[str, Any]]:
    from drupe.api import call

    recipes = call(entry.plugin, f"recipes() of {entry.title}", provider.recipes)
    return [
        {"precision": recipe.precision, "stages": _stages(recipe), "what it makes": recipe.summary}
        for recipe in recipes
    ]


def _stages(recipe: Recipe) -> str:
    """The stages of a recipe, with what is asked of them; a step of its own by its pass, with the flags that set it."""
    from drupe.api import Stage, flag

    words = []
    for each in recipe.stages:
        asked = each.numerics if isinstance(each, Stage) else each.config
        told = [*asked.items(), *((key, flag(option)) for key, option in _options_of_step(each).items())]
        inside = ", ".join(f"{key}={value}" for key, value in told)
        words.append(f"{each.name} ({inside})" if inside else each.name)
    return " > ".join(words)


def _version(entry: Entry[Any]) -> str | None:
    """The installed version of a runtime, in words where it cannot be told."""
    from drupe.api import PluginError, call

    try:
        version: str | None = call(entry.plugin, f"version() of {entry.title}", entry.make().version)
    except PluginError as error:
        return f"cannot be used: {error.what}"
    return version


def _form(form: Form) -> str:
    facts = ", ".join(f"{fact} = {_either(value)}" for fact, value in form.facts.items())
    return f"{form.kind} ({facts})" if facts else form.kind


def _either(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else " or ".join(value)


def _type(annotation: Any) -> str:
    """A type in words, without what restricts its values."""
    kind, inside = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return _type(inside[0])
    if kind in (Union, UnionType):
        return " | ".join(map(_type, inside))
    if isinstance(kind, type):
        return f"{kind.__name__}[{', '.join(map(_type, inside))}]"
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return {"Ellipsis": "..."}.get(text, text.replace("typing.", "").replace("NoneType", "None"))
