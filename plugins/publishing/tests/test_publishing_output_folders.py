"""The output folder: it appears complete or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest


def leftovers(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if "drupe" in each.name]


def package(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "model.txt").write_text(text)
    (folder / "drupe.json").write_text("{}")
    return folder


@pytest.fixture
def staged_and_out(tmp_path):
    """A staged package and an old one, on a disk that can exchange two folders in one step."""
    from drupe_publishing import output_folders

    staged, out = package(tmp_path / "staged", "old"), package(tmp_path / "out", "new")
    if not output_folders._exchange(staged, out):
        pytest.skip("folders cannot change places here: it takes Linux or macOS, and a disk that can")
    return staged, out


def test_publishing_exchanges_the_old_output_in_one_step(staged_and_out, monkeypatch):
    from drupe_publishing.output_folders import publish

    staged, out = staged_and_out
    seen = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda *names: (seen.append((out / "model.txt").read_text()), rename(*names)))
    publish(staged, out, force=True)
    assert seen == ["new"], "the only rename comes when the new output is in its place"


def test_an_interruption_after_the_exchange_undoes_it(staged_and_out, monkeypatch):
    from drupe_publishing.output_folders import publish

    def interrupted(*_):
        raise KeyboardInterrupt

    staged, out = staged_and_out
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(staged, out, force=True)
    assert (out / "model.txt").read_text() == "old" and (staged / "model.txt").read_text() == "new"


@pytest.mark.parametrize("in_one_step", [True, False])
def test_publish_returns_the_old_output_for_the_caller_to_remove(tmp_path, monkeypatch, in_one_step):
    from drupe_publishing import output_folders

    staged, out = package(tmp_path / "staged", "new"), package(tmp_path / "out", "old")
    if not in_one_step:
        monkeypatch.setattr(output_folders, "_exchange", lambda *_: False)
    aside = output_folders.publish(staged, out, force=True)
    assert aside is not None and (aside / "model.txt").read_text() == "old"
    assert (out / "model.txt").read_text() == "new" and not staged.exists()


def test_a_failed_rename_puts_the_old_output_back(tmp_path):
    from drupe.api import OutputError
    from drupe_publishing.output_folders import publish

    out = package(tmp_path / "out", "kept")
    with pytest.raises(OutputError):
        publish(tmp_path / "staging-that-is-gone", out, force=True)
    assert (out / "model.txt").read_text() == "kept" and leftovers(tmp_path) == []
