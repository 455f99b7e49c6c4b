"""Whether a package may take the place of what an output's path holds."""

from __future__ import annotations

from pathlib import Path

from drupe.api import OutputError


def refuse_to_replace(output: Path, force: bool) -> None:
    """Raise OutputError for an output that is there and may not be replaced. force: a package of Drupe may be."""
    from drupe.api import RECORD  # its module takes pydantic along, which `drupe --help` does without

    if output.is_symlink() or (output.exists() and not output.is_dir()):
        what = "a link" if output.is_symlink() else "not a folder"
        raise OutputError(f"the output exists and is {what}", where=output, cure="choose another output")
    if not output.exists() or not any(output.iterdir()):
        return
    if not (output / RECORD).is_file():
        raise OutputError(
            f"the output folder exists and was not made by drupe (it has no {RECORD}), so --force does not replace it",
            where=output,
            cure="choose another output: -o OUT",
        )
    if not force:
        raise OutputError("the output folder exists", where=output, cure="--force replaces it, -o names another")
