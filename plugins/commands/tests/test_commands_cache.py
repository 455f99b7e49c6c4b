"""`drupe cache`: what it lists, removes and checks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from sites import Site


@pytest.fixture
def filled(acme: Site, source: Path, tmp_path: Path) -> Site:
    """A site whose cache has two entries."""
    for text in ("hello", "bye"):
        (source / "model.txt").write_text(text)
        command = ("--provider", "paper", "--precision", "loud", "--no-verify", "--force")
        assert acme.run_here("optimize", source, "-o", tmp_path / "out", *command).returncode == 0
    return acme


def told(site: Site, *command: str, status: int = 0) -> Any:
    done = site.run_here("cache", *command, "--json")
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def test_list_and_size_tell_what_is_kept(filled: Site, source: Path) -> None:
    listed = told(filled, "list")
    assert [(each["what_it_is"], each["model"], each["in_use"]) for each in listed] == [
        ("shout", str(source), False)
    ] * 2
    size = told(filled, "size")
    assert size["results_of_passes"] == 2 and size["stopped_passes"] == 0 and size["limit_in_bytes"] == 50 * 10**9
    assert size["results_of_passes_bytes"] == sum(each["bytes"] for each in listed)
    person = filled.run_here("cache", "list").stdout
    assert all(each["entry"][:12] in person for each in listed) and "in use" in person
    filled.environment["DRUPE_CACHE_LIMIT"] = "none"
    assert told(filled, "size")["limit_in_bytes"] is None


def test_clean_removes_what_is_named_or_above_a_size_or_all(filled: Site) -> None:
    newer, older = told(filled, "list")
    assert told(filled, "clean", "--limit", f"{newer['bytes']}")["removed"] == [older["entry"]]
    assert told(filled, "clean", newer["entry"][:8])["removed"] == [newer["entry"]]
    assert told(filled, "list") == []
    missing = filled.run_here("cache", "clean", newer["entry"][:8])
    assert missing.returncode == 2 and "the cache has no such entry" in missing.stderr
    both = filled.run_here("cache", "clean", "abc", "--limit", "1GB")
    assert both.returncode == 2 and "give one of the two" in both.stderr
    wrong = filled.run_here("cache", "clean", "--limit", "big")
    assert wrong.returncode == 2 and "'big' is no size" in wrong.stderr
    assert filled.run_here("cache", "list").stdout.startswith("nothing is kept in ")


def test_clean_removes_entries_without_bytes(filled: Site) -> None:
    empty = filled.folder / "cache" / "work" / ("a" * 64)
    empty.mkdir(parents=True)
    assert len(told(filled, "clean")["removed"]) == 3
    assert not empty.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="marks are others there")
def test_clean_leaves_what_is_in_use_and_says_so(filled: Site) -> None:
    from drupe_files import Mark

    used, unused = told(filled, "list")
    mark = Mark.on(filled.folder / "cache" / "passes" / used["entry"])
    assert mark is not None
    done = filled.run_here("cache", "clean")
    assert done.returncode == 0 and "removed 1 entry" in done.stdout and "note: 1 entry" in done.stderr
    (left,) = told(filled, "list")
    assert left["entry"] == used["entry"] != unused["entry"] and left["in_use"]
    mark.release()
    assert told(filled, "clean") == {"removed": [used["entry"]], "removed_bytes": used["bytes"], "kept": []}


def test_verify_removes_what_is_damaged_and_leaves_what_is_of_another_version(filled: Site) -> None:
    passes = filled.folder / "cache" / "passes"
    sound = filled.run_here("cache", "verify")
    assert sound.returncode == 0 and "2 entries" in sound.stdout and "every byte is as it was written" in sound.stdout
    damaged, foreign = told(filled, "list")
    (passes / damaged["entry"] / "payload" / "model.txt").write_text("?")
    (passes / foreign["entry"] / "entry.json").unlink()
    checked = told(filled, "verify")
    assert checked["checked"] == 1 and checked["of_another_version"] == [foreign["entry"]]
    (record,) = checked["damaged"]
    assert record["entry"] == damaged["entry"] and record["removed"]
    assert record["what_is_wrong"] == "payload/model.txt has 1 bytes instead of 3"
    assert [path.name for path in passes.iterdir()] == [foreign["entry"]]
    (left,) = told(filled, "list")
    assert left["what_it_is"] == "of another version of Drupe"
