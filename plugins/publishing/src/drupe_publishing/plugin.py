"""The entry module of drupe-publishing: the publisher `local-folder`, and the hook for finishers."""

from drupe.api import Ref, hookimpl, hookspec


@hookimpl
def drupe_publishers() -> list[Ref]:
    return [Ref("local-folder", "drupe_publishing.publisher:LocalFolder", "makes a package in a folder, or nothing")]


@hookspec
def drupe_finishers() -> list[Ref]:  # type: ignore[empty-body]
    """Finishers: what a pass does to a package that has been written, before it is checked and published.

    Each is called what its pass is called, and is asked where that pass is in the plan. The target is a function of the
    package (a drupe.api.Model in a folder whose files it may change), the pass's configuration and the run
    (drupe.api.Run). It gives None where it has done nothing; else three things: a mapping of the keys of the
    configuration with which the pass makes the package as it is now, without the finisher; a tuple of notices; and a
    mapping that is recorded beside the configuration in drupe.json.
    """
