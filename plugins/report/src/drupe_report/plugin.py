"""The entry module of drupe-report: the command `drupe report`."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_commands() -> list[Ref]:
    return [Ref("report", "drupe_report.command:report", "Write a page about a package or a search.")]
