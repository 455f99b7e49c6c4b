"""What drupe-commands brings."""

from drupe.api import Ref, hookimpl, hookspec

_COMMANDS = (
    ("optimize", "optimize:Optimize", "Make a small, fast package of a model."),
    ("auto-opt", "optimize:AutoOpt", "optimize, with the flag names that users of Olive type."),
    ("run", "run:app", "Carry out a plan or a workflow file."),
    ("run-pass", "run_pass:RunPass", "Run one pass on a model."),
    ("evaluate", "evaluate:Evaluate", "Measure a package, alone or against another model."),
    ("generate", "generate:generate", "Continue a text with a package."),
    ("chat", "chat:chat", "Talk with a package."),
    ("inspect", "inspecting:Inspect", "Say what a model is, and whether it is supported."),
    ("passes", "listing:passes", "List passes, or show the configuration of one."),
    ("providers", "listing:providers", "List execution providers, or show what one can do."),
    ("evaluators", "listing:evaluators", "List evaluators, or show the configuration of one."),
    ("tasks", "listing:tasks", "List tasks, or show what one offers."),
    ("runtimes", "listing:runtimes", "List runtimes, or show who uses one."),
    ("cache", "caching:app", "Show what the cache holds, check it, and remove what is in it."),
    ("plugins", "plugins:plugins", "List plugins, and say what is wrong with those that are broken."),
)


@hookimpl
def drupe_commands() -> list[Ref]:
    return [Ref(name, f"drupe_commands.{target}", summary) for name, target, summary in _COMMANDS]


@hookspec
def drupe_workflow_readers() -> list[Ref]:  # type: ignore[empty-body]
    """Readers of the workflow files of other tools, which `drupe run` takes as they are.

    Each target is a function of a document (a mapping of keys) and the model that the user names instead of the file's
    ("" for none). It gives None for a document that is not the tool's, and else a pair: the workflow as a mapping, as
    docs/workflow.schema.json has it, and a list of notices (drupe.api.Notice), one for each thing that the file asks
    for. `about` is its place in the file, `handling` one of "kept", "changed", "left out" and "missing". The workflow
    is None where something is missing: a file is carried out whole or not at all.
    """


@hookspec
def drupe_command_line_readers() -> list[Ref]:  # type: ignore[empty-body]
    """Readers of the command lines of other tools, which `drupe` takes as they are.

    Each target is a function of a command's name, of the arguments as typed, and of the flags that Drupe's command of
    that name has (a frozenset; None where there is no such command). It gives None for a command that the tool does
    not have, and else a pair: the name of one of Drupe's commands with its arguments, and a list of notices
    (drupe.api.Notice), one for each flag that something is to be said of, with a `handling` as above. It raises
    drupe.api.UsageError for what is not done.
    """


@hookspec
def drupe_searchers() -> list[Ref]:  # type: ignore[empty-body]
    """Searchers, which try values of options: `drupe run` asks them about each workflow of Drupe.

    Each target is a function of a workflow's document, in which several values, or a range, may stand where one value
    is wanted. It gives None where there is nothing to search, and else an object that has

    - lines() and document(): what would be searched, as lines and as JSON;
    - carry_out(request_of, output, *, force, progress, say): searches, makes the package at `output`, and gives an
      object with outcome (drupe.api.Outcome) and plan of that package, and lines() and document() about the search.
      request_of gives the Request that a document with one value everywhere stands for; say prints a line.

    `search.executor` of the document says where trials run: `name`, and the executor's settings. `drupe run` puts
    there what --executor, --address and --workers say.
    """
