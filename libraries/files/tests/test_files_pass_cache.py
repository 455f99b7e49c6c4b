"""The cache of passes: what is damaged is made again, and what a process uses stays while it does."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sites import Site

from drupe_files import Mark, cache_entries, is_held, make_room, remove_notes, remove_unused
from drupe_files.cache_entries import CacheEntry
from drupe_files.entry_notes import NOTE

ON_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and locks as POSIX systems have them")


@pytest.fixture
def make(acme: Site, source: Path, tmp_path: Path) -> Callable[..., str]:
    """Makes a package with one costly pass; gives what standard error says. Each package has the same text."""
    number = iter(range(100))

    def make(text: str = "hello", here: bool = True) -> str:
        (source / "model.txt").write_text(text)
        out = tmp_path / f"out{next(number)}"
        command = ("optimize", source, "-o", out, "--provider", "paper", "--precision", "loud")
        done = acme.run_here(*command) if here else acme.run(*command)
        assert done.returncode == 0, done.stderr
        assert (out / "model.txt").read_text() == f"{text.upper()} -- anonymous"
        return done.stderr

    return make


def entries(site: Site) -> list[CacheEntry]:
    return cache_entries(site.folder / "cache")


def runs(site: Site) -> int:
    """How often the costly pass has run."""
    return site.log.read_text().count("shout ran")


def flip(path: Path) -> None:
    """Change one bit in the middle of a file, and no size and no time."""
    state, held = path.stat(), bytearray(path.read_bytes())
    held[len(held) // 2] ^= 1
    path.write_bytes(held)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def add_stranger(path: Path) -> None:
    path.with_name("stranger").write_text("?")


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = [
    ("payload/model.txt", flip),
    ("payload/model.txt", shorten),
    ("payload/model.txt", Path.unlink),
    ("payload/model.txt", add_stranger),
    ("model.json", flip),
    (NOTE, flip),
    (NOTE, shorten),
]


@pytest.mark.parametrize(("file", "damage"), DAMAGES, ids=lambda each: getattr(each, "__name__", each))
def test_a_damaged_entry_is_dropped_and_made_again_and_one_line_says_so(
    acme: Site, make: Callable[..., str], file: str, damage: Callable[[Path], None]
) -> None:
    assert "note" not in make() + make() and runs(acme) == 1
    (entry,) = entries(acme)
    damage(entry.path / file)
    said = make()
    assert said.count("note:") == 1 and "what the cache had kept of shout cannot be used, and is made again" in said
    assert runs(acme) == 2
    assert "note" not in make() and runs(acme) == 2
    (entry,) = entries(acme)
    assert not entry.damage()


def test_an_entry_under_the_key_of_another_is_not_used(acme: Site, make: Callable[..., str]) -> None:
    make("hello")
    (hello,) = entries(acme)
    make("bye")
    bye = next(entry for entry in entries(acme) if entry.key != hello.key)
    key = bye.path
    assert bye.remove()
    hello.path.rename(key)
    assert "it was kept under another name" in make("bye")


def test_what_another_version_has_kept_is_told_apart_from_damage(acme: Site, make: Callable[..., str]) -> None:
    make()
    (entry,) = entries(acme)
    (entry.path / NOTE).unlink()
    assert entry.foreign and not entry.damage()
    assert "another version of Drupe made it" in make()  # no version of Drupe keeps anything under the key of another
    assert not entry.foreign


def test_what_was_not_used_for_the_longest_time_goes_first(acme: Site, make: Callable[..., str]) -> None:
    keys = {}
    for age, text in enumerate(("newest", "middle", "oldest")):
        make(text)
        (fresh,) = {entry.key for entry in entries(acme)} - set(keys.values())
        keys[text] = fresh
        os.utime(acme.folder / "cache" / "passes" / fresh, (0, time.time() - age * 1000))
    assert [entry.key for entry in entries(acme)] == [keys["oldest"], keys["middle"], keys["newest"]]
    make("oldest")  # and so is the newest
    limit = sum(entry.bytes for entry in entries(acme)) - 1
    assert [entry.key for entry in make_room(limit, acme.folder / "cache")] == [keys["middle"]]
    acme.environment["DRUPE_CACHE_LIMIT"] = "100B"
    make("another")
    assert not entries(acme)


@ON_POSIX
def test_an_entry_in_use_is_not_removed(acme: Site, make: Callable[..., str]) -> None:
    make()
    (entry,) = entries(acme)
    marks = [Mark.on(entry.path), Mark.on(entry.path)]
    for mark in marks:
        assert mark is not None and entry.in_use and not entry.remove()
        assert not make_room(0, acme.folder / "cache")
        mark.release()
    assert not entry.in_use and entry.remove() and not entry.path.exists()
    assert Mark.on(entry.path) is None


@ON_POSIX
def test_a_mark_ends_with_its_process_however_that_ends(acme: Site, make: Callable[..., str]) -> None:
    make()
    (entry,) = entries(acme)
    script = (
        "import sys, pathlib, drupe_files; print(drupe_files.Mark.on(pathlib.Path(sys.argv[1])), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script.replace("print(", "print(mark := "), entry.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and "Mark" in other.stdout.readline()
        assert entry.in_use and not entry.remove()
        other.send_signal(signal.SIGKILL)
    assert not entry.in_use and entry.remove()


def test_two_processes_at_once_make_one_entry(acme: Site, source: Path, tmp_path: Path) -> None:
    command = ["--provider", "paper", "--precision", "loud"]
    running = [
        subprocess.Popen(
            acme.command("optimize", source, "-o", tmp_path / f"out{number}", *command),
            env=acme.environ(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    said = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert not any("note" in each for each in said)
    (entry,) = entries(acme)
    assert not entry.damage() and [path.name for path in entry.path.parent.iterdir()] == [entry.key]


@ON_POSIX
def test_a_process_that_is_killed_while_it_keeps_something_leaves_nothing_that_counts(
    acme: Site, source: Path, tmp_path: Path
) -> None:
    command = acme.command(
        "optimize", source, "-o", tmp_path / "out", "--provider", "paper", "--precision", "loud", "--no-verify"
    )
    passes = acme.folder / "cache" / "passes"
    with subprocess.Popen(command, env={**acme.environ(), "ACME_SLEEP": "30"}, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 300
        while not list(passes.glob(".*/payload/model.txt")):
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.02)
        running.kill()
    assert not entries(acme)
    (left,) = passes.iterdir()
    make_room(0, acme.folder / "cache")
    assert left.exists()  # another process may have made it a moment ago
    os.utime(left, (0, time.time() - 100))
    make_room(0, acme.folder / "cache")
    assert not left.exists()


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "the disk is read-only")]
)
def test_a_disk_that_refuses_an_entry_does_not_end_the_run(
    acme: Site, make: Callable[..., str], monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("drupe_files.pass_cache.write_note", refuse)
    said = make("bye")
    assert said.count("note:") == 1 and "what shout made could not be kept in the cache" in said and reason in said
    assert not list((acme.folder / "cache" / "passes").iterdir())


def test_a_limit_that_is_no_size_is_refused_before_the_work(acme: Site, source: Path, tmp_path: Path) -> None:
    acme.environment["DRUPE_CACHE_LIMIT"] = "much"
    done = acme.run_here("optimize", source, "-o", tmp_path / "out", "--provider", "paper", "--precision", "loud")
    assert done.returncode == 2 and "'much' is no size" in done.stderr and "DRUPE_CACHE_LIMIT=20GB" in done.stderr
    assert not acme.log.exists()


def test_a_cache_that_is_no_folder_is_refused_before_the_work(acme: Site, source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    acme.environment["DRUPE_CACHE"] = str(tmp_path / "file")
    done = acme.run_here("optimize", source, "-o", tmp_path / "out", "--provider", "paper", "--precision", "loud")
    assert done.returncode == 5 and "DRUPE_CACHE=<folder>" in done.stderr and not acme.log.exists()


def test_nothing_but_entries_is_ever_removed(tmp_path: Path) -> None:
    """A cache may be told to lie in a folder that has other things in it."""
    for part in ("passes", "work", "digests", "commands", ""):
        (tmp_path / part / "mine").mkdir(parents=True)
        (tmp_path / part / ".mine").mkdir()
        (tmp_path / part / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert not cache_entries(tmp_path) and not make_room(0, tmp_path)
    remove_notes(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_comparisons_keep_counts_and_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "activations" / ("0" * 64 + ".npz")
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("rows", "0123456789" * 100)
    (entry,) = cache_entries(tmp_path)
    assert entry.bytes == file.stat().st_size and not entry.damage() and not entry.in_use
    flip(file)
    assert entry.damage() == "rows is not as it was written"
    shorten(file)
    assert entry.damage().startswith("it cannot be read")
    assert [each.key for each in make_room(0, tmp_path)] == [entry.key] and not file.exists()


@ON_POSIX
def test_a_folder_that_this_user_may_not_open_counts_as_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert is_held(tmp_path) and not remove_unused(tmp_path) and tmp_path.is_dir()
