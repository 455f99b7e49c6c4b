"""The entry module of drupe-publishing: the publisher `local-folder`."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_publishers() -> list[Ref]:
    return [Ref("local-folder", "drupe_publishing.publisher:LocalFolder", "makes a package in a folder, or nothing")]
