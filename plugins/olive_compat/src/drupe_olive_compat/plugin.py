"""The entry module of drupe-olive-compat: a reader of workflow files."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_workflow_readers() -> list[Ref]:
    return [Ref("olive", "drupe_olive_compat.reading:read", "Olive's workflow files, in both of their dialects")]
