"""Validating: what is wrong with what a plugin brings, found without running any of it on a model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from drupe.api import (
    KERNEL,
    PROJECT,
    STAGES,
    DrupeError,
    Stage,
    Step,
    call,
    canonical,
    checked_provider,
    installed_version,
    lacking,
    nearest,
    refuse_unknown_facts,
)
from drupe_commands.command_building import as_command
from drupe_commands.misspelt import misspelt_attributes, unfit_methods

if TYPE_CHECKING:
    from drupe.api import Entry, ExecutionProvider, Option, Pass, Plugin, Recipe, Registry, Target

KERNEL_HOOKS = f"{PROJECT}.hookspecs"
"""The module that declares the kernel's own hooks."""


def brought_by(plugin: Plugin, found: Registry) -> list[Entry[Any]]:
    """All that a plugin brings, also for the hooks that another plugin declares."""
    module = found.manager.get_plugin(plugin.name)
    specs = [caller.spec for caller in found.manager.get_hookcallers(module) or () if caller.spec]
    hooks = sorted(spec.name for spec in specs if getattr(spec.namespace, "__name__", "") != KERNEL_HOOKS)
    declared = [found.offered(_thing(hook), hook) for hook in hooks]
    return [entry for table in (*found.tables, *declared) for entry in table if entry.plugin is plugin]


def _thing(hook: str) -> str:
    """What a hook lists, one of it: "workflow reader" of drupe_workflow_readers."""
    words = hook.removeprefix(f"{PROJECT}_").replace("_", " ")
    return f"{words[:-3]}y" if words.endswith("ies") else words.removesuffix("s")


def requirement_problems(plugin: Plugin) -> Iterator[str]:
    """What is wrong with what a plugin's distribution requires of the kernel, and of what else is ours."""
    from importlib import metadata

    from packaging.requirements import InvalidRequirement, Requirement

    names = set()
    for text in metadata.requires(plugin.distribution) or ():
        try:
            names.add(canonical(Requirement(text).name))
        except InvalidRequirement:
            yield f"its requirement '{text}' cannot be read"
    for text in lacking(plugin.distribution):
        version = installed_version([Requirement(text).name])
        yield f"it needs {text}, " + (f"and {version} is installed" if version else "which is not installed")
    if KERNEL not in names:
        yield f"it states no requirement on {KERNEL}, so that a later kernel may break it"


def option_problems(option: Option, found: Registry) -> Iterator[str]:
    """What is wrong with an option that a plugin declares."""
    from drupe_commands.flags import option_problem
    from drupe_commands.optimize import optimize

    if wrong := option_problem(option, "optimize", optimize, found):
        yield wrong


def problems_of(entry: Entry[Any], found: Registry) -> Iterator[str]:
    """What is wrong with one thing that a plugin brings, a sentence each."""
    checks: dict[str, Callable[[Entry[Any], Registry], Iterator[str]]] = {
        "pass": _of_pass,
        "provider": _of_provider,
        "evaluator": _of_evaluator,
        "task": _of_task,
        "command": _of_command,
    }
    for rival, names in _later_rivals(entry, found):
        both = " and ".join(names)
        yield f"{rival.plugin.title} brings a {entry.what} that is called {both} as well, so that nobody can name it so"
    check = checks.get(entry.what, _of_any)
    try:
        yield from call(entry.plugin, entry.title, lambda: [*check(entry, found), *_of_class(entry)])
    except DrupeError as error:
        yield error.what.removeprefix(entry.title).lstrip(": ") + (f" ({error.where})" if error.where else "")


def _of_class(entry: Entry[Any]) -> list[str]:
    """What is wrong with the class of a thing, whatever it does."""
    return [*sorted(misspelt_attributes(entry)), *unfit_methods(entry)]


def _later_rivals(entry: Entry[Any], found: Registry) -> Iterator[tuple[Entry[Any], list[str]]]:
    """What plugins that come later bring of the same sort, with the names to which both have the same right.

    The later plugin has a note on each name already, and where one has more right, it has the name.
    """
    for rival in next((table for table in found.tables if table.what == entry.what), ()):
        if found.plugins.index(rival.plugin) > found.plugins.index(entry.plugin):
            common = sorted(entry.ref.names & rival.ref.names)
            if names := [name for name in common if entry.right(name) == rival.right(name)]:
                yield rival, names


def _of_any(entry: Entry[Any], found: Registry) -> Iterator[str]:
    entry.make() if entry.contract else entry.resolve()
    yield from ()


def _of_command(entry: Entry[Any], found: Registry) -> Iterator[str]:
    as_command(entry.ref.name, entry.resolve())
    yield from ()


def _of_pass(entry: Entry[Pass], found: Registry) -> Iterator[str]:
    runner = entry.make()
    for form in (runner.requires, runner.ensures):
        refuse_unknown_facts(form, entry.title, found)
        if form.kind not in found.kinds:
            yield f"no plugin brings the model kind '{form.kind}'{_meant(form.kind, found.kinds.entries)}"
    for fact in runner.ensures.facts.keys() - runner.ensures.stated.keys():
        yield f"it ensures several values of the fact '{fact}', which ensures none: a pass makes one"
    for library in runner.libraries:
        if installed_version([library]) is None:
            yield f"it names the library {library}, which is not installed"


def _of_task(entry: Entry[Any], found: Registry) -> Iterator[str]:
    evaluator = entry.make().evaluator
    if evaluator is not None and evaluator not in found.evaluators:
        yield f"no plugin brings its evaluator '{evaluator}'{_meant(evaluator, found.evaluators.entries)}"


def _of_evaluator(entry: Entry[Any], found: Registry) -> Iterator[str]:
    evaluator = entry.make()
    keys = evaluator.Config.model_fields
    for key in (*evaluator.options, *evaluator.verifying):
        if key not in keys:
            yield f"its configuration has no key '{key}'{_meant(key, keys)}"
    yield from _undeclared(evaluator.options.values(), found)


def _of_provider(entry: Entry[ExecutionProvider], found: Registry) -> Iterator[str]:
    provider = checked_provider(entry, found)
    if not entry.ref.device:
        yield "its Ref has no device, so that --device never finds it"
    if provider.runtime_name.casefold() not in entry.ref.names:
        yield f"its Ref does not have the runtime's name '{provider.runtime_name}' in also, so that nobody can type it"
    recipes = call(entry.plugin, f"recipes() of {entry.title}", lambda: list(provider.recipes()))
    precisions = [recipe.precision for recipe in recipes]
    for precision in sorted({each for each in precisions if precisions.count(each) > 1}):
        yield f"it has more than one recipe for the precision '{precision}'; the first is taken"
    wanted = provider.reference_precision
    if wanted is not None and "reference_precision" in vars(type(provider)) and wanted not in precisions:
        yield f"its reference_precision is '{wanted}', and it has the precisions {', '.join(precisions)}"
    target = call(entry.plugin, entry.title, provider.target)
    if target.capabilities is not None:
        yield from _unsupported_activations(recipes, target)
    for recipe in recipes:
        yield from (f"recipe '{recipe.name}': {problem}" for problem in _of_recipe(recipe, found))
        if not _implements(entry.plugin, "drupe_claim", found):  # its own claims may read keys of their own
            yield from (f"recipe '{recipe.name}': {problem}" for problem in _unread_numerics(recipe, found))


def _unsupported_activations(recipes: list[Recipe], target: Target) -> Iterator[str]:
    """Recipes that ask for activations which the provider's own table does not list."""
    served = getattr(target.capabilities, "activations", ())
    for recipe in recipes:
        for stage in recipe.stages:
            wanted = stage.numerics.get("activations") if isinstance(stage, Stage) else None
            if wanted is not None and served and wanted not in served:
                yield f"recipe '{recipe.name}' computes in {wanted}, and the operator table lists {', '.join(served)}"


def _of_recipe(recipe: Recipe, found: Registry) -> Iterator[str]:
    for each in recipe.stages:
        if isinstance(each, Step):
            yield from _of_step(each, found)
        elif each.name not in STAGES:
            yield f"there is no stage '{each.name}'{_meant(each.name, STAGES)}"


def _unread_numerics(recipe: Recipe, found: Registry) -> Iterator[str]:
    """Keys of a recipe's numerics that no pass has: nothing would read them."""
    asked = [(each.name, key) for each in recipe.stages if isinstance(each, Stage) for key in each.numerics]
    known = _keys_of_passes(found) if asked else set()
    for stage, key in asked:
        if key not in known:
            yield f"it asks the stage '{stage}' for '{key}', which no installed pass has as a key{_meant(key, known)}"


def _keys_of_passes(found: Registry) -> set[str]:
    """The keys of all installed passes that can be imported; those that cannot have a line of their own."""
    keys: set[str] = set()
    for entry in found.passes:
        with contextlib.suppress(DrupeError):
            keys.update(entry.resolve().Config.model_fields)
    return keys


def _implements(plugin: Plugin, hook: str, found: Registry) -> bool:
    """Whether a plugin implements a hook."""
    callers = found.manager.get_hookcallers(found.manager.get_plugin(plugin.name)) or ()
    return any(caller.name == hook for caller in callers)


def _of_step(step: Step, found: Registry) -> Iterator[str]:
    """What is wrong with a step of a provider's own."""
    if step.name not in found.passes:
        yield f"no plugin brings the pass '{step.name}'{_meant(step.name, found.passes.entries)}"
        return
    keys = found.passes.find(step.name).resolve().Config.model_fields
    for key in (*step.config, *step.options):
        if key not in keys:
            yield f"the pass '{step.name}' has no key '{key}'{_meant(key, keys)}"
    yield from _undeclared(step.options.values(), found)


def _undeclared(options: Any, found: Registry) -> Iterator[str]:
    for name in options:
        if name not in found.options:
            yield f"no plugin declares the option '{name}'{_meant(name, found.options)}"


def _meant(name: str, known: Any) -> str:
    close = nearest(name, known, 1)
    return f"; did you mean '{close[0]}'?" if close else ""
