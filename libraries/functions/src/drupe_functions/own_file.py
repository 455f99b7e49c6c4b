"""OwnFile: a Python file of the user's, which is run because the user has named it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from drupe.api import DrupeError, UsageError


class OwnFile:
    """A file. digest: the SHA-256 of its content. Raises UsageError where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UsageError("there is no such Python file", where=path)
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def run(self) -> ModuleType:
        """The module that the file makes. It may import what is beside it."""
        name = f"drupe_own_{self.path.stem}_{self.digest[:12]}"
        spec = importlib.util.spec_from_file_location(name, self.path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look for the module of a class there
        try:
            with self.errors("it cannot be run"), self.beside():
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Let imports find what is in the file's folder, as where Python runs the file."""
        folder = str(self.path.absolute().parent)
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn what goes wrong in the file into an error that names its line. Drupe's own errors pass."""
        try:
            yield
        except (DrupeError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit too: a file that ends the program would end it in silence
            said = str(error.msg if isinstance(error, SyntaxError) else error).strip().partition("\n")[0]
            shown = f"{type(error).__name__}: {said}" if said else type(error).__name__
            where = f"{self.path}, line {line}" if (line := self._line(error)) else self.path
            raise UsageError(f"{what}: {shown}", where=where, cure="correct the file") from error

    def _line(self, error: BaseException) -> int | None:
        """The line of the file that an error came from."""
        if isinstance(error, SyntaxError) and error.filename == str(self.path):
            return error.lineno
        own = self.path.absolute()
        frames = traceback.extract_tb(error.__traceback__)
        return next((each.lineno for each in reversed(frames) if Path(each.filename).absolute() == own), None)
