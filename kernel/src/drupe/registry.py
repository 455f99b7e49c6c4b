"""Registry: all that the installed plugins bring, by name, and the hooks they answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

from drupe import hookspecs
from drupe.containment import Plugin, call, one_line, place, timed, warn
from drupe.discovery import discover
from drupe.errors import DrupeError, PluginCrash, PluginError, unknown
from drupe.hookspecs import ALLOW_LIST, PROJECT, Ref
from drupe.tables import Entry, Table
from drupe.values.model import Fact, Form, Model
from drupe.values.option import Option
from drupe.values.recipe import Recipe
from drupe.values.record import replace

if TYPE_CHECKING:
    from drupe.contracts.evaluator import Evaluator
    from drupe.contracts.main_job import Planner, Publisher, Verifier
    from drupe.contracts.model_kind import ModelKind
    from drupe.contracts.pass_ import Pass
    from drupe.contracts.provider import ExecutionProvider
    from drupe.contracts.runtime import Runtime
    from drupe.contracts.task import Task
    from drupe.values.event import Event

T = TypeVar("T")


class Listener(Protocol):
    """An observer that is no plugin."""

    def drupe_observe(self, event: Event) -> None:
        """Take an event."""


class Registry:
    """All that the installed plugins bring, and the hooks they answer."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self.manager = manager
        self.plugins: list[Plugin] = []
        self.options: dict[str, Option] = {}
        self.owners: dict[str, list[tuple[Option, Plugin]]] = {}
        """Who declares each option, and who adds choices to it."""
        self.facts: dict[str, Fact] = {}
        self.listeners: list[Listener] = []
        """Observers that are no plugins': see `listen`."""
        self.kinds: Table[ModelKind] = Table("model kind", "drupe_model_kinds", "ModelKind")
        self.tasks: Table[Task] = Table("task", "drupe_tasks", "Task", "drupe tasks")
        self.passes: Table[Pass] = Table("pass", "drupe_passes", "Pass", "drupe passes")
        self.providers: Table[ExecutionProvider] = Table(
            "provider", "drupe_execution_providers", "ExecutionProvider", "drupe providers"
        )
        self.runtimes: Table[Runtime] = Table("runtime", "drupe_runtimes", "Runtime", "drupe runtimes")
        self.runtimes.guarded = ("version", "refusal", "open")
        self.evaluators: Table[Evaluator] = Table("evaluator", "drupe_evaluators", "Evaluator", "drupe evaluators")
        self.planners: Table[Planner] = Table("planner", "drupe_planners", "Planner")
        self.publishers: Table[Publisher] = Table("publisher", "drupe_publishers", "Publisher")
        self.verifiers: Table[Verifier] = Table("verifier", "drupe_verifiers", "Verifier")
        self.commands: Table[object] = Table("command", "drupe_commands", listed_by="drupe --help")
        self.tables: list[Table[Any]] = [each for each in vars(self).values() if isinstance(each, Table)]
        for table in self.tables:
            table.missing = self.why_missing

    @property
    def working(self) -> list[Plugin]:
        """The plugins that are in use: those that ship with Drupe first, each group in the order of names."""
        return [plugin for plugin in self.plugins if not plugin.reason]

    @property
    def broken(self) -> list[Plugin]:
        """The plugins that are not."""
        return [plugin for plugin in self.plugins if plugin.reason]

    def why_missing(self, name: str) -> str:
        """What could have brought a name that nothing answers to: the plugins that are not in use."""
        out = [f"{plugin.distribution} (not in use: {plugin.reason})" for plugin in self.broken if not plugin.left_out]
        if left_out := [plugin.distribution for plugin in self.broken if plugin.left_out]:
            out.append(f"{', '.join(left_out)} (left out by {ALLOW_LIST})")
        return f"; it may be in {' or in '.join(out)}" if out else ""

    def tell(self, plugin: Plugin, hook: str, read: Callable[[list[Any]], T], **arguments: Any) -> T:
        """Call one plugin's implementation of a hook. read: makes the answer of a list of none or one, inside the call.

        Raises PluginCrash where it fails.
        """
        others = [other for name, other in self.manager.list_name_plugin() if name != plugin.name]
        hooked = self.manager.subset_hook_caller(hook, others)
        return call(plugin, f"{hook}()", lambda: read(hooked(**arguments)))

    def ask(self, plugin: Plugin, hook: str, kind: type[T], *, needed: bool = False, **arguments: Any) -> T | None:
        """What one plugin answers to a hook; None where it says nothing.

        One that fails, or answers what is not of the kind, is disabled; with `needed`, that is an error.
        """
        try:
            with timed(plugin, f"answer {hook}()"):
                answer = self.tell(plugin, hook, lambda answers: next(iter(answers), None), **arguments)
        except PluginCrash as error:
            if needed:
                raise
            self.disable(plugin, f"{hook}() raised {one_line(error.__cause__)}", error)
            return None
        if answer is None or type(answer) is kind:
            return answer
        wrong = f"{hook}() gave {one_line(answer)}, which is not a {kind.__name__}"
        if needed:
            raise PluginError(f"{plugin.title}: {wrong}", cure=plugin.removal)
        self.disable(plugin, wrong)
        return None

    def disable(self, plugin: Plugin, reason: str, error: DrupeError | None = None) -> None:
        """Take a plugin out for the rest of the run, and tell the user. error: what it raised, if it did."""
        plugin.fail(reason, error, (error.where or place(error, plugin)) if error else None)
        if self.manager.has_plugin(plugin.name):
            self.manager.unregister(name=plugin.name)
        for table in self.tables:
            table.drop(plugin)
        for name, declared in list(self.owners.items()):
            self._own(name, [each for each in declared if each[1] is not plugin])
        _tell_of(plugin)

    def declare(self, option: Option, plugin: Plugin) -> None:
        """Take in an option. What ships with Drupe keeps its name, whoever else wants it."""
        for each, owner in [pair for declared in self.owners.values() for pair in declared]:
            if not (option.extends or each.extends) and option.flags & each.flags:
                plugin.remark(f"cannot have its option {option.flag}: {owner.distribution} brings {each.flag}")
                return
        self._own(option.name, [*self.owners.get(option.name, []), (option, plugin)])

    def _own(self, name: str, declared: list[tuple[Option, Plugin]]) -> None:
        """Put together an option with the choices that others add, and their help; one without choices gets none."""
        self.owners[name] = declared
        self.options.pop(name, None)
        for whole in [option for option, _ in declared if not option.extends]:
            added = [option for option, _ in declared if option.extends and whole.choices]
            choices = dict.fromkeys((*whole.choices, *(choice for option in added for choice in option.choices)))
            text = " ".join((whole.help, *(option.help for option in added)))
            self.options[name] = replace(whole, choices=tuple(choices), help=text)

    def state(self, fact: Fact, plugin: Plugin) -> None:
        """Take in a word of the vocabulary. Who declares it first decides what it means."""
        known = self.facts.setdefault(fact.name, fact)
        if (known.values, known.default) != (fact.values, fact.default):
            plugin.remark(f"cannot declare the fact '{fact.name}' anew: it has the values {', '.join(known.values)}")

    def offered(self, what: str, hook: str) -> Table[Any]:
        """What plugins list in a hook that another plugin declares. what: one of the things, in a word or two."""
        table: Table[Any] = Table(what, hook)
        table.missing = self.why_missing
        for plugin in self.working if hasattr(self.manager.hook, hook) else ():
            for ref in _listed(plugin, hook, Ref, self):
                table.add(ref, plugin)
        return table

    def planner(self) -> Planner:
        """What composes plans."""
        return self.planners.needed("composes plans", "drupe-planning")

    def publisher(self) -> Publisher:
        """What carries plans out, and publishes packages."""
        return self.publishers.needed("publishes packages", "drupe-publishing")

    def provider(self, name: str) -> ExecutionProvider:
        """The provider that answers to `name`. No other one is imported."""
        return checked_provider(self.providers.find(name), self)

    def sound_providers(self) -> Iterator[tuple[Entry[ExecutionProvider], ExecutionProvider]]:
        """The providers that can be used, each imported when it is its turn; a line for the user on each that cannot.

        Those that ship with Drupe come first, and of them those with the highest preference.
        """
        order = sorted(self.providers, key=lambda each: (not each.plugin.shipped, -each.ref.preference, each.ref.name))
        for entry in order:
            try:
                yield entry, checked_provider(entry, self)
            except DrupeError as error:
                self.disable(entry.plugin, error.what, error)


def checked_provider(entry: Entry[ExecutionProvider], found: Registry) -> ExecutionProvider:
    """The provider, after making sure that all that the kernel asks of it can be answered. Raises PluginError."""
    provider = entry.make()
    for package in provider.packages:
        if package.runtime not in found.runtimes:
            raise entry.error(f"names an {unknown('runtime', package.runtime, found.runtimes.entries).what}")
    recipes = call(entry.plugin, f"recipes() of {entry.title}", lambda: list(provider.recipes()))
    if not recipes or not all(isinstance(each, Recipe) for each in recipes):
        raise entry.error(f"has the recipes {one_line(recipes)}, and one Recipe or more are wanted")
    return provider


def refuse_unknown_facts(form: Form, title: str, found: Registry) -> None:
    """Raise PluginError for facts and values that are not in the vocabulary: they would never hold."""
    for fact, wanted in form.facts.items():
        if fact not in found.facts:
            raise PluginError(f"{title}: {unknown('fact', fact, found.facts).what}", cure="declare it in drupe_facts")
        known = found.facts[fact].values
        for value in (wanted,) if isinstance(wanted, str) else wanted:
            if known and value not in known:
                raise PluginError(f"{title}: {unknown(f'value of {fact}', value, known).what}")


def refuse_unsound(model: Model, title: str, found: Registry) -> None:
    """Raise PluginError for a model, made by a plugin, whose facts nobody knows or whose payload is of no use."""
    for facts in model.parts.values():
        refuse_unknown_facts(Form(model.kind, facts), title, found)
    if wrong := found.kinds.make(model.kind).payload_problem(model):
        raise PluginError(f"{title} {wrong}")


class Observers:
    """Tells every observer of a run; a plugin's that fails is reported once and told nothing more."""

    def __init__(self, found: Registry) -> None:
        self._found = found
        self._deaf: list[Plugin] = []

    def __call__(self, event: Event) -> None:
        for plugin in (each for each in self._found.working if each not in self._deaf):
            try:
                with timed(plugin, "answer drupe_observe()"):
                    self._found.tell(plugin, "drupe_observe", len, event=event)
            except DrupeError as error:
                self._deaf.append(plugin)
                about = f"drupe_observe() raised {one_line(error.__cause__ or error)}"
                plugin.remark(f"is told no more of this run: {about} ({error.where})")
        for listener in self._found.listeners:
            listener.drupe_observe(event)


def listen(observer: Listener) -> None:
    """Let an object of the program itself observe the runs of this process."""
    registry().listeners.append(observer)


@functools.cache
def registry() -> Registry:
    """The registry of this process: every plugin is looked at once."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    found = Registry(manager)
    found.plugins = discover(manager)
    for plugin in found.broken:
        _tell_of(plugin)
    for plugin in found.working:
        with timed(plugin, "say what it brings"):
            _read(plugin, found)
    for name, declared in found.owners.items():
        for _, plugin in declared if name not in found.options else ():
            plugin.remark(f"adds choices to the option '{name}', which no plugin declares")
    return found


def _tell_of(plugin: Plugin) -> None:
    """Tell the user that a plugin is not in use, but for one that they have left out themselves."""
    if not plugin.left_out:
        warn(f"{plugin.title} is not used: {plugin.reason}; {plugin.cure}")


def _read(plugin: Plugin, found: Registry) -> None:
    """Ask a plugin what it brings; one whose hook fails, or lists what is no such thing, is taken out whole."""
    takers: list[tuple[str, type[Any], Callable[[Any, Plugin], None]]] = [
        *((table.hook, Ref, table.add) for table in found.tables),
        ("drupe_options", Option, found.declare),
        ("drupe_facts", Fact, found.state),
    ]
    listed = [(take, each) for hook, kind, take in takers for each in _listed(plugin, hook, kind, found)]
    for take, each in listed if not plugin.reason else ():
        take(each, plugin)


def _listed(plugin: Plugin, hook: str, kind: type[T], found: Registry) -> list[T]:
    """What a plugin's hook lists; nothing of one that is out of use already."""
    if plugin.reason:
        return []
    try:
        listed = found.tell(plugin, hook, lambda answers: [each for answer in answers for each in answer])
    except DrupeError as error:
        found.disable(plugin, f"{hook}() raised {one_line(error.__cause__ or error)}", error)
        return []
    for strange in (each for each in listed if type(each) is not kind):
        found.disable(plugin, f"{hook}() lists {one_line(strange)}, which is not a {kind.__name__}")
        return []
    return listed
