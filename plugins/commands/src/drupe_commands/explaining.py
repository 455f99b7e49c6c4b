"""What to tell a user besides the text: why it ended early, and what helps where a package does not run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe_commands.messages import tell
from drupe_files.package_record import from_record

if TYPE_CHECKING:
    from drupe_decoding import Generation, TextSession


def say_if_cut_short(session: TextSession, generation: Generation) -> None:
    """Say on standard error that the text ended for want of room, not because it was finished."""
    from drupe.api import counted

    timing, room = session.timing, session.max_length
    if timing is None or room is None or timing.new_tokens >= generation.max_new_tokens:
        return
    if timing.prompt_tokens + timing.new_tokens >= room:
        more = "the model's context has no more" if room == session.context_length else "--max-length makes more"
        room_said = counted(room, "token")
        tell(f"cut short: there is room for {room_said}, prompt and answer together; {more}")


@contextmanager
def explained(package: str, provider: str | None) -> Iterator[None]:
    """Give the error of a package that does not run the cure that its record knows."""
    from drupe.api import CheckFailed, ModelError

    try:
        yield
    except CheckFailed as error:
        record: dict[str, Any] = {}
        with suppress(ModelError):
            record = from_record(Path(package), dict) or {}
        if damage := _damage(Path(package), record):
            error.what, error.cure = damage, "copy the package again, or make it again with drupe optimize"
        else:
            error.cure = _other_provider(provider, record) or error.cure
        raise


def _damage(package: Path, record: dict[str, Any]) -> str | None:
    """The first file that is not as long as it was made, which is found without reading it."""
    for name, file in record.get("files", {}).items():
        path = package / name
        found = path.stat().st_size if path.is_file() else 0
        if found != file["bytes"]:
            return f"'{name}' is damaged: it has {found} bytes and had {file['bytes']}"
    return None


def _other_provider(provider: str | None, record: dict[str, Any]) -> str | None:
    from drupe.api import registry

    made_for = record.get("target", {}).get("provider")
    if provider is None or made_for is None or registry().provider(provider).name == made_for:
        return None
    return f"leave --provider {provider} out: the package was made for {made_for}"
