"""`drupe cache list|size|clean|verify`: what the cache holds, and removing it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe.api import OutputError, UsageError
from drupe_commands.showing import AsJson, print_facts, print_json, print_records

if TYPE_CHECKING:
    from drupe_files import CacheEntry

SHOWN = 12
"""Digits of a key that are shown to a person; fewer are enough to name an entry."""
FOREIGN, DAMAGED = "of another version of Drupe", "damaged"

app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Show what the cache holds, check it, and remove what is in it.",
)


@app.command("list")
def list_entries(as_json: AsJson = False) -> None:
    """List results of passes, and what stopped passes have made."""
    from drupe_files import cache_entries, cache_folder

    records = [_record(entry, as_json) for entry in reversed(cache_entries())]
    if as_json:
        print_json(records)
    elif records:
        print_records(records)
    else:
        print(f"nothing is kept in {cache_folder()}")


@app.command()
def size(as_json: AsJson = False) -> None:
    """Say where the cache is, how large, and how large it may be."""
    from drupe_files import (
        ACTIVATIONS,
        LIMIT,
        MODELS,
        PASSES,
        WORK,
        cache_entries,
        cache_folder,
        cache_limit,
        note_bytes,
    )

    entries, limit = cache_entries(), cache_limit()
    facts: dict[str, Any] = {"folder": str(cache_folder())}
    labels = {
        PASSES: "results of passes",
        WORK: "stopped passes",
        ACTIVATIONS: "sources compared",
        MODELS: "copies of models",
    }
    for part, label in labels.items():
        found = [entry.bytes for entry in entries if entry.part == part]
        facts |= {label: len(found), f"{label}, bytes": sum(found)}
    facts |= {
        "digests and names, bytes": note_bytes(),
        "limit in bytes": int(limit) if limit != float("inf") else None,
    }
    if as_json:
        print_json({label.replace(",", ""): value for label, value in facts.items()})
        return
    print_facts(facts)
    print(f"\n{LIMIT} sets the limit; what was not used for the longest time is removed first")


@app.command()
def clean(
    named: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ENTRY]...", help="Remove only these, as drupe cache list names them."),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="<size>", help="Remove what was not used for the longest time, until 20GB, 500MB, ... are left."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove all that no process uses, or a part of it."""
    from drupe_files import bytes_of, cache_entries, make_room, remove_leftovers, remove_notes

    if named and limit is not None:
        raise UsageError("entries and --limit are given", cure="give one of the two")
    before = cache_entries()
    if limit is not None:
        most = bytes_of(limit, "--limit")
        removed = make_room(most)
        left = _left(before, removed)
        over = sum(entry.bytes for entry in left) > most
        _tell_removed(removed, left if over else [], as_json)
        return
    wanted = [_named(name, before) for name in named] if named else before
    removed = [entry for entry in wanted if entry.remove()]
    if not named:
        remove_leftovers()
        remove_notes()
    _tell_removed(removed, _left(wanted, removed), as_json)


@app.command()
def verify(as_json: AsJson = False) -> None:
    """Read every byte of the results; remove what is damaged.

    What another version of Drupe has kept is left to that version, which may share this cache. What stopped passes have
    made, and copies of models, are checked when they are used.
    """
    from drupe_files import MODELS, WORK, cache_entries

    all_entries = [entry for entry in cache_entries() if entry.part not in (WORK, MODELS)]
    foreign = [entry for entry in all_entries if entry.foreign]
    entries = _left(all_entries, foreign)
    damage = {entry.key: entry.damage() for entry in entries}
    wrong = [entry for entry in entries if damage[entry.key]]
    removed = [entry for entry in wrong if entry.remove()]
    records = [
        {"entry": _shown(entry.key, as_json), "removed": entry in removed, "what is wrong": damage[entry.key]}
        for entry in wrong
    ]
    if as_json:
        checked = {"checked": len(entries), "bytes": sum(entry.bytes for entry in entries)}
        print_json({**checked, "of another version": [entry.key for entry in foreign], "damaged": records})
    elif records:
        print_records(records)
    else:
        print(f"{_counted(entries)}: every byte is as it was written")
    if foreign and not as_json:
        print(f"{_counted(foreign)} of another version of Drupe: not checked")
    if left := _left(wrong, removed):
        raise OutputError(
            f"{_counted(left)} could not be removed: in use, or on a disk that is read-only",
            where=left[0].path,
            cure="run it again when no other process uses the cache",
        )


def _record(entry: CacheEntry, as_json: bool) -> dict[str, Any]:
    """An entry in a line; of its content, only what it says of itself is read."""
    note = entry.note
    what = note.passes if note else _told_without_note(entry)
    used = datetime.fromtimestamp(entry.used, UTC)
    return {
        "entry": _shown(entry.key, as_json),
        "bytes": entry.bytes,
        "used": used.isoformat(timespec="seconds") if as_json else f"{used.astimezone():%Y-%m-%d %H:%M}",
        "in use": entry.in_use,
        "what it is": what,
        "model": entry.source,
    }


def _told_without_note(entry: CacheEntry) -> str:
    from drupe_files import ACTIVATIONS, MODELS, WORK

    of_part = {
        WORK: "of a pass that was stopped",
        ACTIVATIONS: "what a source gives to its head, for comparing with",
        MODELS: "a copy of a model, for the trials of a search",
    }
    return of_part.get(entry.part) or (FOREIGN if entry.foreign else DAMAGED)


def _shown(key: str, as_json: bool) -> str:
    return key if as_json else key[:SHOWN]


def _named(name: str, entries: Iterable[CacheEntry]) -> CacheEntry:
    """The entry whose key begins so. Raises UsageError where it is none, or not one alone."""
    found = [entry for entry in entries if entry.key.startswith(name.lower())]
    if len(found) == 1:
        return found[0]
    what = "several entries begin so" if found else "the cache has no such entry"
    raise UsageError(f"{what}: {name}", cure="drupe cache list names them")


def _left(entries: Sequence[CacheEntry], removed: Sequence[CacheEntry]) -> list[CacheEntry]:
    gone = {entry.path for entry in removed}
    return [entry for entry in entries if entry.path not in gone]


def _tell_removed(removed: Sequence[CacheEntry], kept: Sequence[CacheEntry], as_json: bool) -> None:
    """What was removed, and what was to be removed and is in use."""
    if as_json:
        print_json(
            {
                "removed": [entry.key for entry in removed],
                "removed bytes": sum(entry.bytes for entry in removed),
                "kept": [entry.key for entry in kept],
            }
        )
        return
    print(f"removed {_counted(removed)}")
    if kept:
        sys.stdout.flush()
        print(f"note: {_counted(kept)} could not be removed: in use, or on a disk that is read-only", file=sys.stderr)


def _counted(entries: Sequence[CacheEntry]) -> str:
    """How many entries, and their bytes."""
    from drupe.api import counted
    from drupe_console import size as shown

    return f"{counted(len(entries), 'entry', 'entries')} ({shown(sum(entry.bytes for entry in entries))})"
