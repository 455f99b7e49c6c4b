"""The evaluators that were made of functions; each is an attribute of this module, which tables of evaluators name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import PydanticUserError, create_model

from drupe.api import EvaluatorConfig, Plugin, UsageError, unknown
from drupe_functions.evaluator import FunctionEvaluator
from drupe_functions.own_file import OwnFile

_POSITIONAL_ONLY, _POSITIONAL = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_MADE: dict[str, type[FunctionEvaluator]] = {}


def __getattr__(name: str) -> type[FunctionEvaluator]:
    if name not in _MADE:
        raise AttributeError(f"no evaluator was made of '{name}'")
    return _MADE[name]


def evaluator_from(name: str, path: Path, function_name: str) -> tuple[type[FunctionEvaluator], Plugin]:
    """The evaluator of a function, and what owns it: the file, with the beginning of its digest as the version."""
    file = OwnFile(path)
    module = file.run()
    functions = {
        each: value
        for each, value in vars(module).items()
        if inspect.isfunction(value) and not each.startswith("_") and value.__module__ == module.__name__
    }
    function = functions.get(function_name)
    if function is None:
        raise unknown("function", function_name, functions, where=path)
    place = f"{path}, line {function.__code__.co_firstlineno}"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise UsageError(f"{function_name} is async or a generator, and has to be a plain function", where=place)
    parameters = [*inspect.signature(function).parameters.values()]
    if not parameters or parameters[0].kind not in (_POSITIONAL_ONLY, _POSITIONAL):
        raise UsageError(
            f"{function_name} takes no open package as its first argument",
            where=place,
            cure=f"def {function_name}(session, ...)",
        )
    _MADE[name] = type(
        "OwnFunction",
        (FunctionEvaluator,),
        {
            "name": name,
            "summary": (inspect.getdoc(function) or f"what {function_name} gives").splitlines()[0],
            "Config": _config(function, parameters[1:], place),
            "function": staticmethod(function),
            "file": file,
            "place": place,
        },
    )
    return _MADE[name], Plugin(path.name, path.name, file.digest[:12])


def _config(function: Any, parameters: list[inspect.Parameter], place: str) -> type[EvaluatorConfig]:
    """The configuration whose keys are the further parameters of a function."""
    try:
        hints = get_type_hints(function, include_extras=True)
        fields: dict[str, Any] = {
            each.name: (hints.get(each.name, Any), ... if each.default is each.empty else each.default)
            for each in parameters
            if each.kind in (_POSITIONAL, _KEYWORD)
        }
        made: type[EvaluatorConfig] = create_model("OwnSettings", __base__=EvaluatorConfig, **fields)
    except (NameError, TypeError, PydanticUserError) as error:
        raise UsageError(f"its parameters cannot be settings: {error}", where=place) from error
    return made
