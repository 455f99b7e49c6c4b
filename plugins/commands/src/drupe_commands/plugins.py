"""`drupe plugins`: what is installed, and what is wrong with it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe.api import PROJECT, UsageError
from drupe_commands.messages import installable
from drupe_commands.showing import AsJson, print_facts, print_json, print_records

if TYPE_CHECKING:
    from drupe.api import Option, Plugin, Registry


def plugins(
    name: Annotated[str | None, typer.Argument(help="Show what this one brings, and check it.")] = None,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Show the whole error of a plugin that is not in use.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List plugins, or show what one brings; for what is not in use, say why, and what mends it."""
    from drupe.api import registry

    found = registry()
    if name is None and show_traceback:
        raise UsageError("no plugin is named", cure="drupe plugins NAME --traceback")
    if name is None:
        _list(found, as_json)
        return
    plugin = _find(name, found)
    if show_traceback:
        _print_traceback(plugin)
        return
    _show(plugin, found, as_json)


def _find(name: str, found: Registry) -> Plugin:
    """The plugin of that name, or of the distribution of that name."""
    from drupe.api import unknown

    wanted = name.replace("_", "-").lower()
    for plugin in found.plugins:
        if wanted in (plugin.name, plugin.distribution.replace("_", "-").lower()):
            return plugin
    raise unknown("plugin", name, [each.name for each in found.plugins], cure="drupe plugins lists what is installed")


def _list(found: Registry, as_json: bool) -> None:
    """Every plugin; those that do not ship with Drupe are checked on the way."""
    problems = {id(plugin): _problems(plugin, found) for plugin in found.plugins}
    # Checking one plugin may find something wrong with another, so the notes are collected when all are checked.
    notes = {id(plugin): [*_notes(plugin, found), *problems[id(plugin)]] for plugin in found.plugins}
    if as_json:
        print_json([_record(plugin, notes[id(plugin)]) for plugin in found.plugins])
        return
    print_records(
        [
            {
                "plugin": each.name,
                "distribution": each.title,
                "state": _state(each, problems[id(each)]),
            }
            for each in found.plugins
        ]
    )
    for each in found.plugins:
        for note in notes[id(each)]:
            print(f"\nnote on {each.name}: {note}")
    for each in found.broken:
        print(f"\nto mend {each.name}: {installable(each.cure or '')}")


def _state(plugin: Plugin, problems: list[str]) -> str:
    """Whether a plugin is in use. problems: with what it brings."""
    if plugin.reason:
        return f"not in use: {plugin.reason}"
    return "in use, with problems" if problems else "in use"


def _notes(plugin: Plugin, found: Registry) -> list[str]:
    """What is wrong with a plugin itself; nothing is looked for in those that ship with Drupe."""
    from drupe_commands.validating import requirement_problems

    if plugin.shipped or plugin.reason:
        return [*plugin.notes]
    return [*plugin.notes, *_idleness(plugin, found), *requirement_problems(plugin)]


def _idleness(plugin: Plugin, found: Registry) -> Iterator[str]:
    """That a plugin brings nothing: hooks in a class, say, are called by nobody."""
    module = found.manager.get_plugin(plugin.name)
    declares = any(hasattr(each, f"{PROJECT}_spec") for each in vars(module).values())
    if not (declares or _hooks(plugin, found)):
        yield "its entry module implements no hook, so that it brings nothing"


def _problems(plugin: Plugin, found: Registry) -> list[str]:
    """What is wrong with what a third party's plugin brings; nothing is asked of those that ship with Drupe."""
    from drupe_commands.validating import brought_by, option_problems, problems_of

    if plugin.shipped or plugin.reason:
        return []
    wrong = [
        f"{entry.what} '{entry.ref.name}': {problem}"
        for entry in brought_by(plugin, found)
        for problem in problems_of(entry, found)
    ]
    for option in _options(plugin, found):
        wrong += [f"option {option.flag}: {problem}" for problem in option_problems(option, found)]
    return wrong


def _options(plugin: Plugin, found: Registry) -> list[Option]:
    """The options that a plugin declares, or adds choices to."""
    return [option for declared in found.owners.values() for option, owner in declared if owner is plugin]


def _record(plugin: Plugin, notes: list[str]) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "in use": not plugin.reason,
        "reason": plugin.reason,
        "cure": plugin.cure,
        "shipped": plugin.shipped,
        "notes": notes,
        "seconds": round(plugin.seconds, 4),
    }


def _show(plugin: Plugin, found: Registry, as_json: bool) -> None:
    """One plugin in full, with what is wrong with all that it brings."""
    from drupe_commands.validating import brought_by, option_problems, problems_of

    brings = [
        {
            "what": entry.what,
            "name": entry.ref.name,
            "what it is": entry.ref.summary,
            "checked": "; ".join(problems_of(entry, found)) or "well",
        }
        for entry in brought_by(plugin, found)
    ]
    brings += [
        {
            "what": "option",
            "name": option.flag,
            "what it is": option.help,
            "checked": "; ".join(option_problems(option, found)) or "well",
        }
        for option in _options(plugin, found)
    ]
    if as_json:
        print_json({**_record(plugin, _notes(plugin, found)), "brings": brings})
        return
    print(f"{plugin.name}: {plugin.title}\n")
    print_facts(
        {
            "state": _state(plugin, [each["name"] for each in brings if each["checked"] != "well"]),
            **({"to mend it": installable(plugin.cure)} if plugin.cure else {}),
            "ships with Drupe": plugin.shipped,
            "hooks": _hooks(plugin, found),
            "took": f"{plugin.seconds * 1000:.1f} ms to say what it brings",
        }
    )
    if brings:
        print()
        print_records(brings)
    for note in _notes(plugin, found):
        print(f"\nnote: {note}")
    if plugin.error is not None:
        print(f"\ndrupe plugins {plugin.name} --traceback shows the whole error")


def _hooks(plugin: Plugin, found: Registry) -> list[str]:
    """The hooks that it implements."""
    module = found.manager.get_plugin(plugin.name)
    return [caller.name for caller in found.manager.get_hookcallers(module) or ()] if module is not None else []


def _print_traceback(plugin: Plugin) -> None:
    if plugin.error is None:
        why = plugin.reason or "it is in use"
        raise UsageError(f"there is no error of {plugin.title} to show: {why}", cure=f"drupe plugins {plugin.name}")
    print("".join(traceback.format_exception(plugin.error)), end="")
