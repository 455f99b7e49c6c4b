"""Cures: the commands, options and extras that they name are there."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from drupe_commands.program import app

ROOT = Path(__file__).parents[1]
FOREIGN = {"llama-gguf-split": {"--merge"}, "ray start": {"--head"}}
"""Other programs that cures name, with their options."""
PASSED_ON = {"--training"}
"""Options of drupe that are followed by a dot and the name of another library's argument."""
PROSE = {"made", "needs", "the"}
"""Words after "drupe" in cures that are no commands."""


def texts(node: ast.AST) -> Iterator[str]:
    """The texts in an expression; what is filled in is "{}"."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(each.value) if isinstance(each, ast.Constant) else "{}" for each in node.values)
    elif isinstance(node, ast.Constant):
        yield from [node.value] if isinstance(node.value, str) else []
    else:
        for child in ast.iter_child_nodes(node):
            yield from texts(child)


def cures() -> Iterator[tuple[str, str]]:
    """The place and the text of every cure in the code, also of those that stand in constants."""
    for path in (each for role in ("kernel", "libraries", "plugins") for each in (ROOT / role).rglob("src/**/*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        constants: dict[str, list[str]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        constants.setdefault(target.id, []).extend(texts(node.value))
        for node in ast.walk(tree):
            given: ast.AST | None = node.value if isinstance(node, ast.keyword) and node.arg == "cure" else None
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Notice" and len(node.args) > 3:
                given = node.args[3]
            if given is not None:
                names = [each.id for each in ast.walk(given) if isinstance(each, ast.Name)]
                found = [*texts(given), *(text for name in names for text in constants.get(name, ()))]
                yield from ((f"{path.name}:{given.lineno}", text) for text in found)


def flags_by_command() -> dict[str, set[str]]:
    group: Any = typer.main.get_command(app)
    context = group.context_class(group, info_name="drupe")
    commands = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {
        name: {"--help", *(flag for each in command.params for flag in (*each.opts, *each.secondary_opts))}
        for name, command in commands.items()
    }


def test_every_command_option_and_extra_that_a_cure_names_is_there() -> None:
    flags = flags_by_command()
    every = PASSED_ON.union(*flags.values(), *FOREIGN.values())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    wrong, checked = [], 0
    for place, text in cures():
        named = [name for name in re.findall(r"(?<![\w/-])drupe ([a-z][a-z-]*)", text) if name not in PROSE]
        wrong += [f"{place}: no command {name}" for name in named if name not in flags]
        wrong += [f"{place}: no extra {name}" for name in re.findall(r"drupe\[([a-z-]+)\]", text) if name not in extras]
        for clause in re.split(r"; |, or ", text):
            command = next((name for name in flags if re.search(rf"drupe {name}(?![\w-])", clause)), None)
            typed = re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", clause)
            known = flags[command] if command else every
            wrong += [f"{place}: {command or 'nothing'} has no {flag}" for flag in typed if flag not in known]
            checked += len(typed)
    assert not wrong, "\n".join(wrong)
    assert checked > 90, "the cures were not found"
