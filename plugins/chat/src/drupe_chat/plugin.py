"""Entry module: what this plugin brings."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_commands() -> list[Ref]:
    return [
        Ref("generate", "drupe_chat.generate:generate", "Continue a text with a package."),
        Ref("chat", "drupe_chat.chat:chat", "Talk with a package."),
    ]
