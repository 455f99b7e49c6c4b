"""Entry module: what this plugin brings."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_commands() -> list[Ref]:
    return [Ref("demo", "drupe_demo.command:demo", "Optimize the model that drupe carries, and show what was gained.")]
