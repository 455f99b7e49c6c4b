"""What drupe-optimize brings."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_commands() -> list[Ref]:
    return [
        Ref("optimize", "drupe_optimize.command:optimize", "Make a small, fast package of a model."),
        Ref("auto-opt", "drupe_optimize.command:auto_opt", "The same, with the flag names that users of Olive type."),
    ]
