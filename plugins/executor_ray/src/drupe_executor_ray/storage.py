"""Storage: a folder or a URL of fsspec that every machine of a search can reach, with the model and the cache."""

from __future__ import annotations

import contextlib
import json
import shutil
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import DrupeError, UsageError
from drupe_files import MODELS, FolderCache, Mark, cache_folder, key_of, touch

if TYPE_CHECKING:
    from drupe.api import Model, Run

ENTRIES = "cache"
LISTING = "files.json"
"""Beside the files of a model, and written last: their names."""


class Storage:
    """A place in a file system. Nothing half-written is read: a model has its listing last, an entry is one file."""

    def __init__(self, url: str) -> None:
        """Raises UsageError for a URL that nothing installed can read."""
        from fsspec.core import url_to_fs

        self.url = url
        try:
            self._system, self._root = url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise UsageError(f"the storage cannot be used: {error}", where=url) from error

    def put_model(self, folder: Path, fingerprint: str) -> None:
        """Copy a model, unless it is there already."""
        place = self._model(fingerprint)
        with self._errors("written"):
            if self._system.exists(f"{place}/{LISTING}"):
                return
            names = sorted(str(file.relative_to(folder).as_posix()) for file in folder.rglob("*") if file.is_file())
            for name in names:
                self._system.makedirs(f"{place}/{name}".rpartition("/")[0], exist_ok=True)
                self._system.put_file(str(folder / name), f"{place}/{name}")
            with self._system.transaction, self._system.open(f"{place}/{LISTING}", "w") as listing:
                json.dump(names, listing)

    @contextlib.contextmanager
    def model(self, fingerprint: str) -> Iterator[Path | None]:
        """The folder with a copy of a model in this machine's cache; None where the storage has no such model.

        While it is in use, no process removes it.
        """
        copy = cache_folder() / MODELS / key_of({"fingerprint": fingerprint})
        while (mark := Mark.on(copy)) is None:
            if not self._copy_model(self._model(fingerprint), copy):
                yield None
                return
        touch(copy)
        try:
            yield copy
        finally:
            mark.release()

    def _copy_model(self, place: str, copy: Path) -> bool:
        """Copy a model to this machine; False where the storage does not have it."""
        draft = copy.with_name(f".{uuid.uuid4().hex}")
        try:
            with self._errors("read"):
                if not self._system.exists(f"{place}/{LISTING}"):
                    return False
                for name in json.loads(self._system.cat_file(f"{place}/{LISTING}")):
                    (draft / name).parent.mkdir(parents=True, exist_ok=True)
                    self._system.get_file(f"{place}/{name}", str(draft / name))
            with contextlib.suppress(OSError):  # another worker of this machine has copied it meanwhile
                draft.rename(copy)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return True

    def _model(self, fingerprint: str) -> str:
        return f"{self._root}/{MODELS}/{key_of({'fingerprint': fingerprint})}"

    def put_entry(self, folder: Path) -> None:
        """Copy an entry of the cache."""
        place = self._entry(folder.name)
        with self._errors("written"):
            self._system.makedirs(place.rpartition("/")[0], exist_ok=True)
            with (
                self._system.transaction,
                self._system.open(place, "wb") as file,
                tarfile.open(fileobj=file, mode="w|") as archive,
            ):
                archive.add(folder, arcname=".")

    def has_entry(self, name: str) -> bool:
        with self._errors("read"):
            return bool(self._system.exists(self._entry(name)))

    def get_entry(self, name: str, folder: Path) -> None:
        """Write an entry of the cache into an empty folder."""
        with (
            self._errors("read"),
            self._system.open(self._entry(name), "rb") as file,
            tarfile.open(fileobj=file, mode="r|") as archive,
        ):
            archive.extractall(folder, filter="data")

    def _entry(self, name: str) -> str:
        return f"{self._root}/{ENTRIES}/{name}.tar"

    @contextlib.contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every file system has errors of its own
            what = f"the storage cannot be {done}: {type(error).__name__}: {error}"
            raise DrupeError(what, where=self.url) from error


class SharedCache:
    """A `drupe.api.PassCache`: the cache of this machine, which gets what it lacks from a storage, and gives it what is
    made."""

    def __init__(self, own: FolderCache, storage: Storage) -> None:
        self._own = own
        self._storage = storage

    def find(self, run: Run, at: int) -> Model | None:
        place = self._own.place(run, at)
        if not place.is_dir() and self._storage.has_entry(place.name):
            self._own.take(run, at, lambda folder: self._storage.get_entry(place.name, folder))
        return self._own.find(run, at)

    def keep(self, run: Run, at: int, model: Model) -> Model:
        kept = self._own.keep(run, at, model)
        if (place := self._own.place(run, at)).is_dir():
            self._storage.put_entry(place)
        return kept


def put_model_of(task: Mapping[str, Any], storage: Storage) -> None:
    """Copy the model of a task to a storage, where it is a folder of this machine."""
    source = task["plan"]["source"]
    if (folder := Path(source["reference"])).is_dir():
        storage.put_model(folder, source["fingerprint"])


@contextlib.contextmanager
def placed(task: Mapping[str, Any], storage: Storage) -> Iterator[dict[str, Any]]:
    """The task with the place of its model on this machine."""
    plan = task["plan"]
    with storage.model(plan["source"]["fingerprint"]) as copy:
        if copy is not None:
            plan = {**plan, "source": {**plan["source"], "reference": str(copy)}}
        yield {**task, "plan": plan}
