"""What drupe-info brings."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_commands() -> list[Ref]:
    return [
        Ref("inspect", "drupe_info.inspecting:inspect", "Say what a model is, and whether it is supported."),
        Ref("passes", "drupe_info.listing:passes", "List passes, or show the configuration of one."),
        Ref("providers", "drupe_info.listing:providers", "List execution providers, or show what one can do."),
        Ref("plugins", "drupe_info.listing:plugins", "List plugins, and say what is wrong with those that are broken."),
    ]
