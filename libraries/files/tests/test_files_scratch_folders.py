"""Scratch folders: those that a killed run left behind are removed."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="nothing tells there which folders are in use")
def test_scratch_folders_of_killed_runs_are_removed_and_those_in_use_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drupe_files.scratch_folders import A_DAY, scratch

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    other = tmp_path / "other"
    (other / "drupe-kind-a").mkdir(parents=True)
    with scratch("kind", other) as folder:
        assert folder.name.startswith("drupe-kind-") and list(other.iterdir()) == [folder]
    other.rmdir()
    names = ("drupe-scratch-a", "drupe-unmarked-old", "drupe-unmarked-new", "drupe-mine")
    killed, old, new, foreign = (tmp_path / name for name in names)
    for folder in (killed, old, new, foreign):
        folder.mkdir()
    (killed / "file").touch()
    with scratch() as in_use:
        for folder in (old, foreign, in_use):
            os.utime(folder, (0, time.time() - 2 * A_DAY))
        with scratch():
            assert in_use.is_dir() and not killed.exists()
    assert sorted(tmp_path.iterdir()) == [foreign, new]
