"""A third party's plugin, whole: a kind of model, two passes, a provider, a runtime, a command."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_model_kinds():
    return [Ref("text", "acme:TextKind", "a text file")]


@hookimpl
def drupe_passes():
    return [
        Ref("sign", "acme:Sign", "adds a signature"),
        Ref("shout", "acme:Shout", "makes it loud, at great cost"),
        Ref("capitals", "acme:Capitals", "makes it loud, and tells nobody"),
    ]


@hookimpl
def drupe_execution_providers():
    return [Ref("paper", "acme:Paper", "a sheet of paper")]


@hookimpl
def drupe_runtimes():
    return [Ref("echo", "acme:Echo", "reads a text out")]


@hookimpl
def drupe_commands():
    return [Ref("greet", "acme:greet", "Say hello.")]


@hookimpl
def drupe_resolve_model(reference, options):
    from pathlib import Path

    from drupe.api import Model

    folder = Path(reference)
    return Model("text", folder, {"signed": "no"}) if (folder / "model.txt").is_file() else None
