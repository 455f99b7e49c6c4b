"""FolderCache: keeps what costly passes have made, under keys that cover all that decides it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from drupe.api import ModelError, OutputError
from drupe_files.cache import cache_folder, cache_limit
from drupe_files.cache_entries import PASSES, make_room, touch
from drupe_files.disk import REASONS, refuse_unwritable
from drupe_files.entry_notes import damage_of, read_note, write_note
from drupe_files.folder_marks import OPENED, Mark, held, remove_unused
from drupe_files.pass_keys import key_at

if TYPE_CHECKING:
    from drupe.api import Model, Run


class FolderCache:
    """A `drupe.api.PassCache` of folders. One appears whole or not at all, so a killed process leaves no half of it.

    A context manager: what it gave is in use until the end, so that no process removes it; then the cache is brought
    under its limit. Without a `with` block, this is until the object is gone.
    """

    def __init__(self, root: Path | None = None) -> None:
        """root: the folder of the cache; None for the user's own."""
        self._root = root or cache_folder()
        self._folder = self._root / PASSES
        self._marks: dict[str, Mark] = {}
        self._keys: dict[tuple[str, int], str] = {}
        self._grew = False

    def __enter__(self) -> FolderCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for mark in self._marks.values():
            mark.release()
        self._marks.clear()
        if self._grew:
            make_room(cache_limit(), self._root)

    def prepare(self, run: Run) -> None:
        """Make the cache's folder. Raises UsageError for a limit that is none.

        Raises OutputError, before any work, where nothing can be kept, unless all that is costly is there already.
        """
        cache_limit()
        try:
            self._refuse_unwritable()
        except OutputError:
            costly = [at for at, step in enumerate(run.passes) if step.runner.costly]
            if not all((self._folder / self._key(run, at)).is_dir() for at in costly):
                raise

    def _refuse_unwritable(self) -> None:
        folder = self._folder.absolute()
        refuse_unwritable(folder / "kept", "name another folder for the cache: DRUPE_CACHE=<folder>")
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, run: Run, at: int) -> Model | None:
        """What the passes up to `at` have made before, if every byte of it is as it was written.

        What is damaged, or refers to a file that has changed, is dropped, and an event "cache-dropped" says so.
        """
        from drupe.api import kept_model

        folder = self._folder / self._key(run, at)
        if not self._use(folder):
            return None
        why = damage_of(folder)
        try:
            if not why and (note := read_note(folder)):
                return kept_model(folder, run.found, (Path(note.location), _location(run)))
        except ModelError as error:
            why = error.what
        self._marks.pop(folder.name).release()
        remove_unused(folder)
        name = run.passes[at].planned.name
        what = f"what the cache had kept of {name} cannot be used, and is made again: {why}"
        run.say("cache-dropped", name, what=what, entry=folder.name)
        self._refuse_unwritable()
        return None

    def keep(self, run: Run, at: int, model: Model) -> Model:
        """Keep what the passes up to `at` have made; gives the model as it lies in the cache.

        Where the disk refuses that, an event "cache-failed" says so, and the run goes on with the model as it is.
        """
        from drupe.api import keep_model, kept_model

        key = self._key(run, at)
        try:
            with self._making(key) as folder:
                keep_model(model, folder, run.context)
                chain = " > ".join(step.planned.name for step in run.passes[: at + 1])
                source = run.job.plan.source.reference
                write_note(folder, key, source=source, location=str(_location(run)), passes=chain)
                self._publish(folder, key)
                self._grew = True
                make_room(cache_limit(), self._root)
            return kept_model(self._folder / key, run.found)
        except (OSError, OutputError) as error:
            name = run.passes[at].planned.name
            what = f"what {name} made could not be kept in the cache ({self._folder}): {_reason(error)}"
            run.say("cache-failed", name, what=what, entry=key)
            return model

    def place(self, run: Run, at: int) -> Path:
        """The folder of what the passes up to `at` make, whether or not it is there. Its name is the key."""
        return self._folder / self._key(run, at)

    def take(self, run: Run, at: int, fill: Callable[[Path], None]) -> None:
        """Take in an entry of another cache. fill: writes it into an empty folder."""
        key = self._key(run, at)
        with self._making(key) as folder:
            fill(folder)
            self._publish(folder, key)
            self._grew = True

    def _key(self, run: Run, at: int) -> str:
        place = run.job.id, at
        if place not in self._keys:
            self._keys[place] = key_at(run, at)
        return self._keys[place]

    @contextmanager
    def _making(self, key: str) -> Iterator[Path]:
        """An empty folder for an entry, which is removed if it is not published."""
        self._folder.mkdir(parents=True, exist_ok=True)
        folder = self._folder / f".{key[:16]}-{uuid.uuid4().hex}"
        folder.mkdir()
        try:
            with held(folder):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, folder: Path, key: str) -> None:
        """Give a whole entry its name. One that another process has made in the meantime is the same, and stays."""
        if os.name == "nt":
            (folder / OPENED).touch()
        try:
            folder.rename(self._folder / key)
        except OSError:
            if not (self._folder / key).is_dir():
                raise
            if damage_of(self._folder / key):
                raise OSError("a damaged entry of that key cannot be removed") from None
        if not self._use(self._folder / key):
            raise OSError("another process has removed it")

    def _use(self, folder: Path) -> bool:
        """Mark an entry as in use by this process; False where there is none."""
        if folder.name not in self._marks:
            if (mark := Mark.on(folder)) is None:
                return False
            self._marks[folder.name] = mark
            touch(folder)
        return True


def _location(run: Run) -> Path:
    """The folder in which a run's source lies. The key vouches for the content of the model's files in it."""
    location = run.job.source.location.absolute()
    return location.parent if location.is_file() else location


def _reason(error: OSError | OutputError) -> str:
    if isinstance(error, OutputError):
        return error.what
    what, _ = REASONS.get(error.errno or 0, ("", ""))
    return what or error.strerror or str(error)
