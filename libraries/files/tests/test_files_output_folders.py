"""The output folder: it appears complete or not at all."""

from __future__ import annotations

import subprocess
import sys
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
    from drupe_files import output_folders

    staged, out = package(tmp_path / "staged", "old"), package(tmp_path / "out", "new")
    if not output_folders._exchange(staged, out):
        pytest.skip("folders cannot change places here: it takes Linux or macOS, and a disk that can")
    return staged, out


def test_publishing_exchanges_the_old_output_in_one_step(staged_and_out, monkeypatch):
    from drupe_files.output_folders import publish

    staged, out = staged_and_out
    seen = []
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", lambda *names: (seen.append((out / "model.txt").read_text()), rename(*names)))
    publish(staged, out, force=True)
    assert seen == ["new"], "the only rename comes when the new output is in its place"


def test_an_interruption_after_the_exchange_undoes_it(staged_and_out, monkeypatch):
    from drupe_files.output_folders import publish

    def interrupted(*_):
        raise KeyboardInterrupt

    staged, out = staged_and_out
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(staged, out, force=True)
    assert (out / "model.txt").read_text() == "old" and (staged / "model.txt").read_text() == "new"


@pytest.mark.parametrize("in_one_step", [True, False])
def test_publish_returns_the_old_output_for_the_caller_to_remove(tmp_path, monkeypatch, in_one_step):
    from drupe_files import output_folders

    staged, out = package(tmp_path / "staged", "new"), package(tmp_path / "out", "old")
    if not in_one_step:
        monkeypatch.setattr(output_folders, "_exchange", lambda *_: False)
    aside = output_folders.publish(staged, out, force=True)
    assert aside is not None and (aside / "model.txt").read_text() == "old"
    assert (out / "model.txt").read_text() == "new" and not staged.exists()


def test_a_failed_rename_puts_the_old_output_back(tmp_path):
    from drupe.api import OutputError
    from drupe_files.output_folders import publish

    out = package(tmp_path / "out", "kept")
    with pytest.raises(OutputError):
        publish(tmp_path / "staging-that-is-gone", out, force=True)
    assert (out / "model.txt").read_text() == "kept" and leftovers(tmp_path) == []


def claim(output: Path):
    from drupe_files import claimed

    return claimed(output)


def test_a_second_run_into_one_output_is_refused_and_nothing_is_left(tmp_path):
    from drupe.api import OutputError

    pytest.importorskip("fcntl")
    out = tmp_path / "new" / "out"
    with claim(out):
        with pytest.raises(OutputError, match="another run is making this output"), claim(out):
            pass
        with claim(tmp_path / "new" / "other"):
            pass
        assert leftovers(tmp_path / "new") == [".out.drupe-lock"]
    assert list(tmp_path.iterdir()) == []
    with claim(out):
        pass


def test_the_claim_of_a_killed_run_counts_no_more(tmp_path):
    pytest.importorskip("fcntl")
    code = (
        "import os, sys, time; from pathlib import Path; from drupe_files import claimed\n"
        "with claimed(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "out"], check=False)
    assert done.returncode != 0 and leftovers(tmp_path) == [".out.drupe-lock"]
    with claim(tmp_path / "out"):
        pass
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("place", ["model", "model/..", "."])
def test_an_output_that_holds_its_own_source_is_refused_and_nobody_is_told_to_remove_it(tmp_path, place):
    from drupe.api import OutputError
    from drupe_files.output_folders import prepared

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    making = prepared(tmp_path / place, tmp_path / "model", force=True)
    with pytest.raises(OutputError, match="would replace the model that it is made from") as told, making:
        pass
    assert told.value.cure == "choose another folder: -o OUT"
