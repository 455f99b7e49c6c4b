"""The entry module of drupe-demo: the command `drupe demo`."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_commands() -> list[Ref]:
    return [Ref("demo", "drupe_demo.command:demo", "Optimize drupe's built-in model, and compare it before and after.")]
