"""No plugin breaks what does not use it: each hostile plugin is installed alone beside working plugins.

The working plugins are the program's commands and acme, the kernel's example plugin, as if they shipped with Drupe.
At the end some hostile plugins are installed beside the real plugins, with a real model.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clocks import TAKES, install_clock
from sites import Done, Site
from tiny import make_checkpoint

HEAD = """
from drupe.api import Claim, Fact, Model, ModelError, Option, Ref, Step, UsageError, hookimpl
class Unprintable:
    def __repr__(self):
        raise RuntimeError("nobody prints this")
def lazy():
    yield from ()
    raise RuntimeError("too late")
"""
LISTING = (
    "drupe_model_kinds", "drupe_facts", "drupe_tasks", "drupe_passes", "drupe_execution_providers", "drupe_runtimes",
    "drupe_evaluators", "drupe_planners", "drupe_publishers", "drupe_verifiers", "drupe_commands", "drupe_options",
)  # fmt: skip
ASKING = {
    "drupe_resolve_model": "reference, options",
    "drupe_claim": "stage, model, target, request",
    "drupe_amend_plan": "plan, request",
    "drupe_observe": "event",
}
WAYS = {
    "raises": ("raise ValueError('out of order')", "ValueError: out of order"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "raises-its-own": ("raise UsageError('out of order')", "UsageError: out of order"),
    "prints": ("print('me, me, me')", "prints to standard output"),
    "gives-text": ("return 'sign'", "'s|'sign'"),
    "gives-a-number": ("return 7", "not iterable|7"),
    "gives-texts": ("return ['sign', 'shout']", "'sign'"),
    "gives-a-generator-that-raises": ("return lazy()", "too late|generator"),
    "gives-the-unprintable": ("return [Unprintable()] if LISTS else Unprintable()", "Unprintable"),
    "gives-a-ref-of-nothing": ("return [Ref(None, None, None)]", "TypeError: Ref has name = None"),
    "gives-nothing": ("return None", None),
}
"""What a hook can do: its body, and what is told of it."""


@dataclass(frozen=True)
class Villain:
    """A hostile plugin. told: a pattern for the warning that the user must get; None for no warning.

    at: whether the warning names file and line. code: of the module that its Refs point at. entry: the plugin's name.
    """

    module: str
    told: str | None
    at: bool = False
    code: str = ""
    entry: str = "villain"


def hook(name: str, body: str) -> str:
    arguments = ASKING.get(name, "")
    return f"{HEAD}LISTS = {name in LISTING}\n@hookimpl\ndef {name}({arguments}):\n    {body}\n"


def hooks() -> Iterator[Any]:
    """A villain for every hook and every kind of misbehaviour."""
    for name in (*LISTING, *ASKING):
        for way, (body, told) in WAYS.items():
            # No warning is expected: the user has not asked for the villain, so its hooks for plans are not called.
            # What an observer returns, and an error about a model that another plugin resolves, are ignored.
            silent = name in ("drupe_claim", "drupe_amend_plan") or (
                name in ASKING
                and ((name == "drupe_observe" and way.startswith("gives") and way != "gives-a-ref-of-nothing")
                     or (name != "drupe_observe" and way == "raises-its-own"))
            )  # fmt: skip
            at = way in ("raises", "exits", "gives-a-ref-of-nothing") or (way == "raises-its-own" and name in LISTING)
            yield pytest.param(
                Villain(hook(name, body), None if silent else told, at=at and not silent), id=f"{name[6:]}-{way}"
            )


IMPORTING = {
    "raises": Villain("raise ValueError('not today')", "ValueError: not today", at=True),
    "exits": Villain("raise SystemExit", "SystemExit", at=True),
    "asserts": Villain("assert False, 'not today'", "AssertionError: not today", at=True),
    "prints": Villain(f"print('me, me, me')\n{HEAD}", "prints to standard output"),
    "is-no-python": Villain("def villain(:", "SyntaxError", at=True),
    "lacks-a-library": Villain("import a_library_that_nobody_has", "No module named 'a_library", at=True),
    "brings-nothing": Villain(
        f"{HEAD}class Hooks:\n    @hookimpl\n    def drupe_passes(self):\n        return []\nhooks = Hooks()\n",
        "its entry module implements no hook, so that it brings nothing",
    ),
    "marks-no-hook": Villain("def drupe_passes():\n    return []", "is not marked with @hookimpl", at=True),
    "gives-a-list-for-a-hook": Villain("drupe_passes = []", "its drupe_passes is not a function"),
    "marks-a-class": Villain(
        f"{HEAD}@hookimpl\nclass drupe_passes:\n    pass\n", "its drupe_passes is not a function"
    ),
    "closes-standard-output": Villain(f"import sys\nsys.stdout.close()\n{hook('drupe_passes', 'return []')}", None),
    "misspells-a-hook": Villain(hook("drupe_pases", "return []"), "'drupe_pases'; did you mean drupe_passes"),
    "misspells-an-argument": Villain(
        f"{HEAD}@hookimpl\ndef drupe_observe(evnt):\n    pass\n", "evnt"
    ),
    "raises-without-words": Villain(
        "class Odd(Exception):\n    def __str__(self):\n        return 1 / 0\nraise Odd", "Odd", at=True
    ),
    "talks-too-long": Villain("raise ValueError('no ' * 10_000)", r"ValueError: (no ){50,99}n?o?\.\.\. \(", at=True),
}  # fmt: skip


def lists(hook_name: str, what: str) -> str:
    return hook(hook_name, f"return [{what}]")


def brings(hook_name: str, name: str, code: str, told: str | None, at: bool = False) -> Villain:
    """A plugin that brings one thing: `Thing` in its second module."""
    return Villain(lists(hook_name, f"Ref('{name}', 'villain_code:Thing', 'a thing')"), told, at, code)


def clash(hook_name: str, name: str, what: str, owner: str = "acme") -> Villain:
    return brings(hook_name, name, "", f"cannot have the name '{name}' for its {what}: {owner} brings one of that name")


CLASHES = {
    "kind": clash("drupe_model_kinds", "text", "model kind"),
    "task": clash("drupe_tasks", "echoing", "task"),
    "pass": clash("drupe_passes", "sign", "pass"),
    "provider": clash("drupe_execution_providers", "paper", "provider"),
    "runtime": clash("drupe_runtimes", "echo", "runtime"),
    "evaluator": clash("drupe_evaluators", "length", "evaluator"),
    "verifier": clash("drupe_verifiers", "reader", "verifier"),
    "command": clash("drupe_commands", "greet", "command"),
    "command-plugins": clash("drupe_commands", "plugins", "command", "drupe-commands"),
    "command-optimize": clash("drupe_commands", "optimize", "command", "drupe-commands"),
    "planner": clash("drupe_planners", "by-recipe", "planner", "drupe-planning"),
    "publisher": clash("drupe_publishers", "local-folder", "publisher", "drupe-publishing"),
    "another-planner": brings("drupe_planners", "aaa", "raise SystemExit", "planner 'aaa'.*SystemExit"),
    "another-publisher": brings("drupe_publishers", "aaa", "raise SystemExit", "publisher 'aaa'.*SystemExit"),
    "another-verifier": brings("drupe_verifiers", "aaa", "raise SystemExit", "verifier 'aaa'.*SystemExit"),
    "option": Villain(
        lists("drupe_options", "Option('author', 'Mine.', type=int)"), "cannot have its option --author: acme brings"
    ),
    "option-that-says-no": Villain(
        lists("drupe_options", "Option('quiet', 'Mine.', type=bool, off='volume')"),
        "cannot have its option --quiet: acme brings --volume",
    ),
    "option-of-the-command": Villain(
        lists("drupe_options", "Option('output_path', 'Mine.')"), "drupe optimize has a flag --output-path of its own"
    ),
    "choices-that-would-close-an-option": Villain(
        lists("drupe_options", "Option('author', 'Mine.', choices=('me',), extends=True)"), None
    ),
    "choices-of-nothing": Villain(
        lists("drupe_options", "Option('authr', 'Mine.', choices=('me',), extends=True)"),
        "adds choices to the option 'authr', which no plugin declares",
    ),
    "option-that-cannot-be-typed": Villain(
        lists("drupe_options", "Option('block-size', 'Mine.')"), "'block-size' is not a name in snake case", at=True
    ),
    "option-that-is-a-word-of-python": Villain(
        lists("drupe_options", "Option('class', 'Mine.')"), "'class' is not a valid parameter name"
    ),
    "option-whose-no-is-its-yes": Villain(
        lists("drupe_options", "Option('mine', 'Mine.', type=bool, off='mine')"), "the same flag for true/false"
    ),
    "option-of-an-argument": Villain(
        lists("drupe_options", "Option('model', 'Mine.')"), "drupe optimize has an argument of that name"
    ),
    "option-of-a-strange-type": Villain(
        lists("drupe_options", "Option('author2', 'Mine.', type=object)"), "which nobody can type", at=True
    ),
    "ref-that-is-none": Villain(
        hook("drupe_passes", "return [type('Odd', (), {'__class__': Ref})()]"), "which is not a Ref"
    ),
    "ref-that-answers-nothing": Villain(
        f"{HEAD}class Odd(Ref):\n    @property\n    def names(self):\n        raise SystemExit(3)\n"
        "@hookimpl\ndef drupe_passes():\n    return [Odd('mine', 'villain_code:Thing', 'mine')]\n",
        "which is not a Ref",
    ),
    "fact": Villain(
        lists("drupe_facts", "Fact('signed', ('never',), 'mine', 'never')"), "cannot declare the fact 'signed' anew"
    ),
    "fact-of-text": Villain(lists("drupe_facts", "Fact('dry', 'yes', 'mine')"), "Fact has values = 'yes'", at=True),
    "plugin": Villain(hook("drupe_passes", "return []"), "already brings a plugin called 'acme'", entry="acme"),
    "plugin-commands": Villain("raise SystemExit", "already brings a plugin called 'commands'", entry="commands"),
    "plugin-called-as-a-listener": Villain(
        hook("drupe_observe", "raise SystemExit(3)"), "SystemExit: 3", at=True, entry="listener-7"
    ),
    "claims-every-stage-at-the-highest-rank": Villain(
        hook("drupe_claim", "return Claim('mine', (Step('sgin'), Step('shout')), 10**9)"), None
    ),
    "takes-every-model": Villain(
        hook("drupe_resolve_model", "from pathlib import Path; return Model.single('text', Path(reference), {})"),
        "takes '.*' for its own, but it is a model that acme knows",
    ),
    "makes-a-model-of-no-kind": Villain(
        hook("drupe_resolve_model", "from pathlib import Path; return Model.single('vapour', Path(reference), {})"),
        "unknown model kind 'vapour'",
    ),
    "makes-a-model-of-text": Villain(
        hook("drupe_resolve_model", "return Model.single('text', reference, {})"), "not of the type Path"
    ),
    "makes-a-model-of-strange-facts": Villain(
        hook("drupe_resolve_model", "from pathlib import Path; return Model.single('text', Path(), {'sigend': 'no'})"),
        "unknown fact 'sigend'; did you mean signed",
    ),
    "amends-every-plan": Villain(hook("drupe_amend_plan", "return plan.but(passes=[{'name': 'sgin'}])"), None),
    "wraps-a-hook": Villain(
        f"{HEAD}@hookimpl(wrapper=True)\ndef drupe_passes():\n    yield\n    raise SystemExit(3)\n",
        "SystemExit: 3",
        at=True,
    ),
    "wraps-a-hook-and-gives-text": Villain(
        f"{HEAD}@hookimpl(wrapper=True)\ndef drupe_passes():\n    yield\n    return ['sign']\n", "'s'"
    ),
    "observes-by-ending": Villain(hook("drupe_observe", "raise SystemExit(0)"), "SystemExit: 0", at=True),
}

PROVIDER = """
from drupe.api import Device, ExecutionProvider, Recipe, RuntimePackage, Stage, Step
class Thing(ExecutionProvider):
    name = "card"
    summary = "a card"
    runtime_name = "Card"
    packages = (RuntimePackage("echo", "pip install villain"),)
    def recipes(self):
        return [Recipe("card", "int4", (Step("sign"),))]
    def devices(self):
        return [Device("Card", "card")]
"""


CARD = "also=('Card',), device='card', preference=10**6"
"""What the Ref of the provider says besides."""


def provider(body: str, told: str | None, at: bool = False, name: str = "card", ref: str = CARD) -> Villain:
    return listed_provider(f"{PROVIDER}    {body}\n", told, at, name, ref)


def listed_provider(code: str, told: str | None, at: bool = False, name: str = "card", ref: str = CARD) -> Villain:
    listing = lists("drupe_execution_providers", f"Ref('{name}', 'villain_code:Thing', 'a thing', {ref})")
    return Villain(listing, told, at, code)


def without(line: str, told: str) -> Villain:
    code = PROVIDER.replace(line, "")
    assert code != PROVIDER
    return listed_provider(code, told)


PROVIDERS = {
    "works": provider("pass", None),
    "has-no-device": provider("pass", "its Ref has no device, so that --device never finds it", ref="also=('Card',)"),
    "does-not-say-its-runtime-name": provider(
        "runtime_name = 'Credit'", "its Ref does not have the runtime's name 'Credit' in also"
    ),
    "has-no-runtime-name": without('    runtime_name = "Card"\n', "has no runtime_name"),
    "has-no-packages": without('    packages = (RuntimePackage("echo", "pip install villain"),)\n', "has no packages"),
    "has-no-name": without('    name = "card"\n', "has no name"),
    "lacks-a-method": without('    def devices(self):\n        return [Device("Card", "card")]\n', "abstract.*devices"),
    "has-no-other-names": provider("pass", "Ref has also = None", at=True, ref="also=None"),
    "has-other-names-of-text": provider("pass", "Ref has also = 'sheet'", at=True, ref="also='sheet'"),
    "has-packages-of-text": provider("packages = ('echo',)", r"has packages = \('echo',\)"),
    "names-a-runtime-that-is-not-there": provider(
        "packages = (RuntimePackage('ecko', 'pip install villain'),)", "unknown runtime 'ecko'; did you mean echo"
    ),
    "prefers-itself-in-words": provider("pass", "Ref has preference = 'most'", at=True, ref="preference='most'"),
    "is-called-otherwise": provider("name = 'crad'", "calls itself 'crad'; both names must be one"),
    "wants-another-name-that-ships": provider(
        "pass", "cannot have the name 'sheet' for its provider", ref="also=('Card', 'sheet')"
    ),
    "wants-a-runtime-name-that-ships": provider(
        "pass", "cannot have the name 'paperexecutionprovider' for its provider", ref="also=('PaperExecutionProvider',)"
    ),
    "is-called-as-an-alias-that-ships": provider("name = 'sheet'", "cannot have the name 'sheet'", name="sheet"),
    "is-called-as-one-that-ships-in-capitals": provider(
        "name = 'PAPER'", "cannot have the name 'paper'", name="PAPER"
    ),
    "cannot-be-made": provider("def __init__(self):\n        raise SystemExit(3)", "SystemExit: 3", at=True),
    "has-devices-that-raise": provider("def devices(self):\n        raise ValueError('no bus')", "no bus", at=True),
    "has-devices-that-exit": provider("def devices(self):\n        raise SystemExit(3)", "SystemExit: 3", at=True),
    "has-devices-of-text": provider("def devices(self):\n        return ['Card']", "Card|device"),
    "has-a-target-that-raises": provider("def target(self):\n        raise ValueError('no bus')", "no bus|^$"),
    "has-a-target-of-nothing": provider("def target(self):\n        return None", "None|^$"),
    "has-recipes-of-text": provider("def recipes(self):\n        return ['int4']", r"has the recipes \['int4'\]"),
    "has-no-recipes": provider("def recipes(self):\n        return []", r"has the recipes \[\]"),
    "has-recipes-that-raise": provider("def recipes(self):\n        return 1 / 0", "ZeroDivisionError", at=True),
    "has-recipes-that-print": provider(
        "def recipes(self):\n        print('me')\n        return [Recipe('card', 'int4', ())]", "prints to"
    ),
    "has-a-recipe-of-strange-stages": provider(
        "def recipes(self):\n        return [Recipe('card', 'int4', (Stage('qantize'),))]",
        "did you mean quantize",
        at=True,
    ),
    "is-no-provider": listed_provider("Thing = 7", "is not a class that extends"),
    "is-a-class-of-its-own": brings(
        "drupe_execution_providers", "card", "class Thing: name = 'card'", "is not a class that extends"
    ),
    "is-not-there": listed_provider("", "has no attribute 'Thing'"),
    "exits-when-imported": listed_provider("raise SystemExit(3)", "SystemExit: 3", at=True),
    "is-no-python": listed_provider("def villain(:", "SyntaxError", at=True),
}  # fmt: skip

PASS = """
from drupe.api import Form, Pass
class Thing(Pass):
    name = "tear"
    summary = "tears it"
    requires = ensures = Form("text")
    def run(self, model, config, context):
        return model
"""


def pass_(old: str, new: str, told: str) -> Villain:
    return brings("drupe_passes", "tear", PASS.replace(old, new), told)


THINGS = {
    "pass-without-requires": pass_("requires = ensures", "ensures", "pass 'tear'.* has no requires"),
    "pass-without-run": pass_("def run", "def ran", "pass 'tear'.*abstract"),
    "pass-of-a-strange-fact": pass_('"text")', '"text", {"sigend": "no"})', "unknown fact 'sigend'; did you mean"),
    "pass-of-a-strange-value": pass_('"text")', '"text", {"signed": "nope"})', "unknown value 'nope' of signed"),
    "pass-of-a-kind-that-is-not-there": pass_('"text")', '"txt")', "no plugin brings the model kind 'txt'"),
    "pass-of-a-library-that-is-not-there": pass_(
        "def run", "libraries = ('nowhere',)\n    def run", "it names the library nowhere, which is not installed"
    ),
    "pass-called-otherwise": pass_('"tear"', '"taer"', "calls itself 'taer'"),
    "task-without-a-check": brings(
        "drupe_tasks",
        "tearing",
        "from drupe.api import Task\nclass Thing(Task):\n    name, summary = 'tearing', 'tears'\n",
        "task 'tearing'.*abstract",
    ),
    "runtime-that-cannot-be-imported": brings("drupe_runtimes", "tore", "raise ValueError('no')", "ValueError: no"),
    "evaluator-of-a-strange-option": brings(
        "drupe_evaluators",
        "tears",
        "from drupe.api import Evaluator\nclass Thing(Evaluator):\n    name = 'tears'\n    summary = 'counts'\n"
        "    options = {'limit': 'longst'}\n    def evaluate(self, *given):\n        return []\n",
        "no plugin declares the option 'longst'; did you mean 'longest'",
    ),
    "command-that-cannot-be-built": brings(
        "drupe_commands", "tear", "def Thing(unhinged: lambda: 3): pass", None
    ),
    "command-of-a-class-that-cannot-be-made": brings(
        "drupe_commands",
        "tear",
        "class Thing:\n    def __init__(self):\n        1 / 0",
        "command 'tear'.*ZeroDivisionError",
        True,
    ),
    "command-that-is-async": brings("drupe_commands", "tear", "async def Thing(): pass", "async function"),
    "evaluator-that-takes-too-little": brings(
        "drupe_evaluators",
        "tears",
        "from drupe.api import Evaluator\nclass Thing(Evaluator):\n    name = 'tears'\n    summary = 'counts'\n"
        "    def evaluate(self, model, reference, context):\n        return []\n",
        r"its method evaluate cannot be called as evaluate\(model, reference, config, context\): too many positional",
    ),
    "runtime-that-opens-later": brings(
        "drupe_runtimes",
        "tore",
        "from drupe.api import Runtime\nclass Thing(Runtime):\n    name = 'tore'\n    distributions = ()\n"
        "    def refusal(self, model, target):\n        return None\n"
        "    async def open(self, model, target, *, max_length=None, threads=0):\n        return None\n",
        "its method open cannot be called as .*it is async",
    ),
    "runtime-that-takes-no-length": brings(
        "drupe_runtimes",
        "tore",
        "from drupe.api import Runtime\nclass Thing(Runtime):\n    name = 'tore'\n    distributions = ()\n"
        "    @staticmethod\n    def refusal(model, target):\n        return None\n"
        "    def open(self, model, target):\n        return None\n",
        "its method open cannot be called as .*unexpected keyword argument 'max_length'",
    ),
    "reader-that-is-not-there": brings(
        "drupe_workflow_readers", "tear", "", "workflow reader 'tear': cannot be imported: AttributeError"
    ),
    "command-that-cannot-be-imported": brings("drupe_commands", "tear", "raise SystemExit(3)", "SystemExit: 3"),
}  # fmt: skip


# The working plugins, and the program's output without a villain

LOOKS = (("--help",), ("plugins",), ("passes",), ("providers",), ("optimize", "--help"))


@dataclass(frozen=True)
class World:
    """A site, a source and an output that are the same in every run."""

    site: Site
    source: Path
    output: Path

    def look(self) -> list[Done]:
        """The results of the listing commands."""
        return [self.run(*arguments) for arguments in LOOKS]

    def optimize(self, *more: str) -> Done:
        """Run the main job with no plugin, provider or pass named."""
        shutil.rmtree(self.output, ignore_errors=True)
        return self.run("optimize", str(self.source), "-o", str(self.output), *more)

    def made(self) -> tuple[bytes, Any]:
        """The package and its plan."""
        record = json.loads((self.output / "drupe.json").read_text())
        return (self.output / "model.txt").read_bytes(), record["plan"]

    def run(self, *arguments: str) -> Done:
        shutil.rmtree(self.site.folder / "cache", ignore_errors=True)
        self.site.events.unlink(missing_ok=True)
        return self.site.run_here(*arguments)

    def admit(self, villain: Villain) -> None:
        files = {"villain.py": villain.module, "villain_code.py": villain.code}
        self.site.add("villain", {villain.entry: "villain"}, files)
        if "DRUPE_PLUGINS" in self.site.environment:
            self.site.allow("villain")

    def expel(self) -> None:
        for path in self.site.folder.glob("villain*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@dataclass(frozen=True)
class Peace:
    """Output and package without a villain."""

    looks: list[Done]
    optimized: Done
    made: tuple[bytes, Any]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    source = folder / "source"
    source.mkdir()
    (source / "model.txt").write_text("hello")
    site = Site(folder / "site")
    site.folder.mkdir()
    site.add_acme()
    site.ship("acme", "drupe-commands")
    return World(site, source, folder / "out")


@pytest.fixture(scope="module")
def peace(world: World) -> Peace:
    looks, optimized = world.look(), world.optimize("--volume", "loud")
    for done in (*looks, optimized):
        assert (done.returncode, warnings(done)) == (0, []), done
    return Peace(looks, optimized, world.made())


def rows(text: str) -> list[str]:
    """The lines of a text, without the width of columns."""
    return [row for line in text.splitlines() if (row := " ".join(line.split()))]


def numberless(text: str) -> str:
    """A text without its numbers of seconds and bytes, which differ from run to run."""
    return re.sub(r"\d[\d.,]*( [kMG]i?B| s| ms)?", "#", text)


def warnings(done: Done) -> list[str]:
    """The lines on standard error, without the main job's progress and what a villain prints."""
    return [line for line in done.stderr.splitlines() if not line.startswith(("writing: ", "me"))]


def told_by(done: Done) -> list[str]:
    """The lines of a run about villains. Asserts that there is at most one warning, and none about other plugins."""
    lines = warnings(done)
    assert all(line.startswith("warning: villain 1.0 ") for line in lines), done.stderr
    assert len(lines) <= 1, done.stderr
    return lines + [line for line in done.stdout.splitlines() if is_about(line)]


def every(*groups: dict[str, Villain]) -> Iterator[Any]:
    for group in groups:
        yield from (pytest.param(villain, id=name) for name, villain in group.items())


@pytest.mark.parametrize("villain", [*hooks(), *every(IMPORTING, CLASHES, PROVIDERS, THINGS)])
def test_nothing_changes_for_a_user_who_does_not_use_the_hostile_plugin(
    world: World, peace: Peace, villain: Villain
) -> None:
    world.admit(villain)
    try:
        looks, optimized = world.look(), world.optimize("--volume", "loud")
        made = world.made()
    finally:
        world.expel()
    for arguments, done, before in zip(LOOKS, looks, peace.looks, strict=True):
        assert done.returncode == 0, (arguments, done)
        theirs = [line for line in rows(done.stdout) if is_about(line)]
        assert [line for line in rows(done.stdout) if line not in theirs] == rows(before.stdout), arguments
    assert optimized.returncode == 0, optimized
    assert numberless(optimized.stdout) == numberless(peace.optimized.stdout)
    assert made == peace.made
    told = [line for done in (*looks, optimized) for line in told_by(done)]
    if villain.told is None:
        assert not any(warnings(done) for done in (*looks, optimized)), told
        return
    matching = [line for line in told if re.search(villain.told, line)]
    assert matching, (villain.told, told)
    assert not villain.at or re.search(r"villain(_code)?\.py:\d+", matching[0]), matching


def is_about(line: str) -> bool:
    """Whether a line of a listing names the villain or something that it brings."""
    return bool(re.search(r"villain|listener-7|\bcard\b|\btear", line))


SLOW = {
    "import": (f"{TAKES.format(1.6)}\n", "say what it brings"),
    "listing": (hook("drupe_passes", f"{TAKES.format(1.6)}; return []"), "say what it brings"),
    "resolving": (hook("drupe_resolve_model", TAKES.format(1.6)), r"answer drupe_resolve_model\(\)"),
    "observing": (
        hook("drupe_observe", TAKES.format("1.6 * event.name.startswith('run')")), r"answer drupe_observe\(\)"
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", SLOW)
def test_a_slow_plugin_is_named_once(world: World, peace: Peace, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    module, doing = SLOW[way]
    install_clock(monkeypatch)
    world.admit(Villain(module, None))
    try:
        done = world.optimize("--volume", "loud")
    finally:
        world.expel()
    assert done.returncode == 0 and world.made() == peace.made
    (warning,) = warnings(done)
    assert re.fullmatch(rf"warning: villain 1\.0 took 1\.6 s to {doing}", warning)


@pytest.mark.parametrize(
    "printing",
    [
        "import os; os.write(1, b'me, me, me\\n')",
        "import sys; sys.__stdout__.write('me, me, me\\n')",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(\"me, me, me\")'])",
    ],
    ids=["descriptor", "dunder-stdout", "child"],
)
def test_what_a_plugin_prints_around_the_interpreter_is_no_part_of_the_result(world: World, printing: str) -> None:
    world.admit(Villain(f"{HEAD}{printing}\n", None))
    try:
        done = world.site.run("passes", "--json")
    finally:
        world.expel()
    assert done.returncode == 0 and done.stderr.strip() == "me, me, me"
    assert {each["pass"] for each in json.loads(done.stdout)} >= {"sign", "shout"}


# The real plugins, and a real model

REAL = {
    "claims-every-stage": (CLASHES["claims-every-stage-at-the-highest-rank"], (), None),
    "fails-when-asked-for-a-claim": (Villain(hook("drupe_claim", "raise SystemExit(3)"), None), (), None),
    "fails-when-asked-for-a-model": (Villain(hook("drupe_resolve_model", "1 / 0"), None), (), "ZeroDivisionError"),
    "brings-a-provider-cpu": (
        listed_provider(PROVIDER.replace('"card"', '"cpu"', 1), None, name="cpu"), (),
        "cannot have the name 'cpu' for its provider: drupe-ep-cpu brings one of that name",
    ),
    "wants-the-runtime-name": (
        provider("pass", None, ref="also=('CPUExecutionProvider',)"), ("--provider", "CPUExecutionProvider"),
        "cannot have the name 'cpuexecutionprovider' for its provider: drupe-ep-cpu brings one of that name",
    ),
    "is-asked-for-no-device": (PROVIDERS["exits-when-imported"], ("--device", "cpu"), None),
    "is-asked-for-no-name": (PROVIDERS["exits-when-imported"], ("--provider", "CPUExecutionProvider"), None),
    "brings-a-pass-that-ships": (
        brings("drupe_passes", "quantize-weights", "", None), (), "cannot have the name 'quantize-weights' for its pass"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class RealWorld:
    """A tiny checkpoint, and its package made without a villain."""

    world: World
    package: dict[str, bytes]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> RealWorld:
    folder = tmp_path_factory.mktemp("real")
    site = Site(folder / "site")
    site.folder.mkdir()
    world = World(site, make_checkpoint(folder / "checkpoint"), folder / "out")
    done = world.optimize("--no-verify")
    assert done.returncode == 0, done
    return RealWorld(world, package(world.output))


def package(folder: Path) -> dict[str, bytes]:
    """The files of a package except its record, which contains times."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "drupe.json"}


@pytest.mark.parametrize(
    ("villain", "arguments", "told"), [pytest.param(*each, id=name) for name, each in REAL.items()]
)
def test_the_main_job_on_a_real_model_makes_the_same_bytes_beside_hostile_plugins(
    real: RealWorld, villain: Villain, arguments: tuple[str, ...], told: str | None
) -> None:
    real.world.admit(villain)
    try:
        done = real.world.optimize("--no-verify", *arguments)
    finally:
        real.world.expel()
    assert done.returncode == 0, done
    assert package(real.world.output) == real.package
    named = [line for line in warnings(done) if line.startswith("warning: villain 1.0 ")]
    assert warnings(done) == named and len(named) == (told is not None)
    assert told is None or told in named[0]


def test_a_run_with_its_check_succeeds_beside_a_plugin_that_fails_in_every_hook(real: RealWorld) -> None:
    failing = "".join(hook(name, "raise SystemExit(3)") for name in (*ASKING, "drupe_passes"))
    real.world.admit(Villain(failing, None))
    try:
        shutil.rmtree(real.world.output)
        done = real.world.site.run("optimize", real.world.source, "-o", real.world.output, "--require-check")
    finally:
        real.world.expel()
    assert done.returncode == 0, done.stderr
    assert package(real.world.output) == real.package
    assert done.stderr.count("warning: villain 1.0 is not used: drupe_passes() raised SystemExit: 3") == 1
    assert "villain" not in done.stdout


# The hooks that plugins declare for others

DECLARED = {
    "drupe_decoder_families": ("inspect", "--families"),
    "drupe_workflow_readers": ("run", "OLIVE", "--dry-run"),
    "drupe_command_line_readers": ("quantize", "-m", "SOURCE", "-o", "OUT", "--algorithm", "rtn", "--plan"),
    "drupe_searchers": ("run", "SEARCH", "--dry-run"),
    "drupe_executors": ("run", "SEARCH", "--dry-run", "--executor", "local"),
}
"""A command that asks each of them."""


@pytest.fixture(scope="module")
def asked(real: RealWorld) -> dict[str, Done]:
    """What the commands answer without a villain."""
    return {name: ask(real, name) for name in DECLARED}


def ask(real: RealWorld, hook_name: str) -> Done:
    """Run the command that asks a hook."""
    world, folder = real.world, real.world.source.parent
    target = {"provider": "cpu", "precision": "int4"}
    several = [{"quantize-weights": {"block_size": [32, 64]}}]
    (folder / "search.json").write_text(
        json.dumps({"model": str(world.source), "target": target, "passes": several, "output": str(folder / "found")})
    )
    builder = {"type": "ModelBuilder", "precision": "int4"}
    hugging = {"type": "HfModel", "model_path": str(world.source)}
    (folder / "olive.json").write_text(json.dumps({"input_model": hugging, "passes": {"builder": builder}}))
    files = {"SOURCE": world.source, "OUT": folder / "other", "SEARCH": folder / "search.json"}
    files["OLIVE"] = folder / "olive.json"
    return world.site.run_here(*(files.get(word, word) for word in DECLARED[hook_name]))


@pytest.mark.parametrize("hook_name", DECLARED)
@pytest.mark.parametrize(
    "way", ["raises", "exits", "prints", "gives-a-number", "gives-texts", "gives-a-ref-of-nothing"]
)
def test_a_hook_of_a_plugin_answers_as_without_the_one_that_fails_in_it(
    real: RealWorld, asked: dict[str, Done], hook_name: str, way: str
) -> None:
    body, told = WAYS[way]
    real.world.admit(Villain(hook(hook_name, body), told))
    try:
        done = ask(real, hook_name)
    finally:
        real.world.expel()
    assert (done.returncode, done.stdout) == (asked[hook_name].returncode, asked[hook_name].stdout) and done.stdout
    said = set(warnings(done)) - set(warnings(asked[hook_name]))
    assert len(said) == 1 and said.pop().startswith("warning: villain 1.0 ")
