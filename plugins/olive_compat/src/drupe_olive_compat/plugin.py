"""The entry module of drupe-olive-compat: readers of workflow files and of command lines."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_workflow_readers() -> list[Ref]:
    return [Ref("olive", "drupe_olive_compat.reading:read", "Olive's workflow files, in both of their dialects")]


@hookimpl
def drupe_command_line_readers() -> list[Ref]:
    return [Ref("olive", "drupe_olive_compat.command_lines:read_line", "Olive's commands and their flags")]
