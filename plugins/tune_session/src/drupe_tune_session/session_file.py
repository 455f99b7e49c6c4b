"""The file with the session options of a package in a folder, which is rewritten again and again while it is tuned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drupe_onnx.session_options import GENAI, OWN, SessionSetting, options_in, with_options

Changes = Mapping[str, Any]
"""Values by the names of settings."""


def with_changes(
    name: str, content: bytes | None, changes: Changes, known: Mapping[str, SessionSetting]
) -> bytes | None:
    """The content of the file with changed settings; the same bytes where nothing changes, None for no file."""
    options, before = options_in(name, content), options_in(name, content)
    for setting, value in changes.items():
        known[setting].put_into(options, value)
    return content if options == before else with_options(name, content, options)


class SessionFile:
    """The file in a folder that belongs to the tuning alone. What was in it counts as the portable settings."""

    def __init__(self, folder: Path, known: Mapping[str, SessionSetting]) -> None:
        self.name = GENAI if (folder / GENAI).is_file() else OWN
        self._path = folder / self.name
        self._known = known
        self._portable = self._path.read_bytes() if self._path.is_file() else None

    def value(self, setting: str) -> Any:
        """The portable value of a setting."""
        return self._known[setting].value_in(options_in(self.name, self._portable))

    def write(self, changes: Changes) -> bool:
        """Write the portable settings with changes. Returns whether the file differs from the portable one."""
        content = with_changes(self.name, self._portable, changes, self._known)
        now = self._path.read_bytes() if self._path.is_file() else None
        if content != now:
            self._path.unlink(missing_ok=True)  # it may be a link to the file of another folder
            if content is not None:
                self._path.write_bytes(content)
        return content != self._portable
