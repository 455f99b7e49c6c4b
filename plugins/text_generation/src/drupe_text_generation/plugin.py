"""The entry module of drupe-text-generation: the task `text-generation`."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_tasks() -> list[Ref]:
    return [
        Ref(
            "text-generation",
            "drupe_text_generation.text_generation:TextGeneration",
            "continues a text, or answers in a conversation",
        )
    ]
