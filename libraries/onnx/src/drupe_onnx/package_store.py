"""Keeping a lazy package: graphs without weights, expressions as JSON, and bytes that exist nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError
from drupe_files import file_stamp
from drupe_onnx import ir
from drupe_onnx.expressions.expression import Expression
from drupe_onnx.expressions.serialization import Codec, from_json, to_json
from drupe_onnx.expressions.sources import Array
from drupe_onnx.files import Files, link_or_copy
from drupe_onnx.layout import INLINE, reference, serialized
from drupe_onnx.package import OnnxPackage, initializers_of
from drupe_onnx.weights import LazyWeight, expression_of

Moved = tuple[Path, Path] | None
_VERSION = 1
_DOCUMENT, _ARRAYS, _KEPT, _BEFORE = "package.json", "arrays.data", "kept", "{}.before.onnx"


def store_package(package: OnnxPackage, folder: Path, scratch: Path) -> None:
    """Keep the package in `folder`, which may be moved afterwards.

    Files under `scratch`, which will be removed, are copied; others are referred to by path, size and time.
    """
    with (folder / _ARRAYS).open("wb") as arrays:
        keeper = _Keeper(folder, scratch, arrays)
        components = {
            name: _store_graph(folder / f"{name}.onnx", model, keeper) for name, model in package.components.items()
        }
        before = {
            name: _store_graph(folder / _BEFORE.format(name), model, keeper) for name, model in package.sources.items()
        }
        files = {name: keeper.keep_file(content) for name, content in package.files.items()}
    document = {
        "version": _VERSION,
        "components": components,
        "before": before,
        "files": files,
        "sources": sorted(keeper.stamps),
    }
    (folder / _DOCUMENT).write_text(json.dumps(document), encoding="utf-8")


def restore_package(folder: Path, moved: Moved = None) -> OnnxPackage:
    """The package that `store_package` kept. Raises ModelError where a file that it refers to has changed.

    moved: a folder that it refers to, and where the same files are known to lie now.
    """
    document = json.loads((folder / _DOCUMENT).read_text(encoding="utf-8"))
    for path, size, changed in document["sources"]:
        _refuse_changed(Path(path), size, changed, moved)
    with Files() as files:
        finder = _Finder(folder, files, moved)
        components = {
            name: _restore_graph(folder / f"{name}.onnx", expressions, finder)
            for name, expressions in document["components"].items()
        }
        before = {
            name: _restore_graph(folder / _BEFORE.format(name), expressions, finder)
            for name, expressions in document.get("before", {}).items()
        }
        kept_files = {name: finder.find_file(kept) for name, kept in document["files"].items()}
        return OnnxPackage(components, kept_files, before)


def _refuse_changed(path: Path, size: int, changed: int, moved: Moved) -> None:
    """Raise ModelError for a file that is another one now; of what has moved, all but the size is known."""
    here = _now_at(path, moved)
    _, size_now, changed_now = file_stamp(here or path)
    if size_now != size or (here is None and changed_now != changed):
        raise ModelError(
            f"'{path.name}' has changed since this model was made from it",
            where=here or path,
            cure="run the command again",
        )


def _now_at(path: Path, moved: Moved) -> Path | None:
    """Where a file lies now; None for one that is not among those that have moved."""
    if moved is None or not path.is_relative_to(moved[0]):
        return None
    return moved[1] / path.relative_to(moved[0])


def _store_graph(path: Path, model: ir.Model, keeper: _Keeper) -> list[Any]:
    """Write the graph with a number in place of each weight; returns the expressions in the order of the numbers."""
    expressions: list[Any] = []
    tensors: list[ir.TensorProtocol | None] = []
    for value in initializers_of(model):
        expression = _lazy(value)
        if expression is None:
            tensors.append(None)
        else:
            tensors.append(reference(value, _DOCUMENT, len(expressions), 0))
            expressions.append(to_json(expression, keeper))
    path.write_bytes(serialized(model, tensors))
    return expressions


def _lazy(value: ir.Value) -> Expression | None:
    """The expression of a weight; None for a weight that is kept in the graph."""
    expression = expression_of(value)
    return None if isinstance(expression, Array) and expression.nbytes < INLINE else expression


def _restore_graph(path: Path, expressions: list[Any], finder: _Finder) -> ir.Model:
    model = ir.load(path)
    for value in initializers_of(model):
        if isinstance(value.const_value, ir.ExternalTensor):
            expression = from_json(expressions[value.const_value.offset or 0], finder)
            value.const_value = LazyWeight(value.name, expression)
    return model


class _Keeper(Codec):
    """Keeps large arrays in one file, and copies files that will be removed."""

    def __init__(self, folder: Path, scratch: Path, arrays: BinaryIO) -> None:
        self.stamps: set[tuple[str, int, int]] = set()
        self._folder, self._scratch, self._arrays = folder, scratch.absolute(), arrays
        self._offsets: dict[str, int] = {}
        self._kept: dict[Path, str] = {}

    def keep_array(self, values: NDArray[Any]) -> Any:
        if values.nbytes < INLINE:
            return super().keep_array(values)
        array = Array(values)
        if array.digest not in self._offsets:
            self._offsets[array.digest] = self._arrays.tell()
            self._arrays.write(array.values.reshape(-1).view(np.uint8).data)
        return {"dtype": array.dtype.name, "shape": list(array.shape), "offset": self._offsets[array.digest]}

    def keep_path(self, path: Path) -> Any:
        if not path.absolute().is_relative_to(self._scratch):
            self.stamps.add(file_stamp(path))
            return super().keep_path(path)
        if path not in self._kept:
            self._kept[path] = f"{len(self._kept)}-{path.name}"
            (self._folder / _KEPT).mkdir(exist_ok=True)
            link_or_copy(path, self._folder / _KEPT / self._kept[path])
        return {"kept": self._kept[path]}

    def keep_file(self, content: Path | bytes) -> Any:
        if isinstance(content, Path):
            return self.keep_path(content)
        name = f"{len(self._kept)}-contents"
        self._kept[Path(name)] = name
        (self._folder / _KEPT).mkdir(exist_ok=True)
        (self._folder / _KEPT / name).write_bytes(content)
        return {"contents": name}


class _Finder(Codec):
    """Finds the arrays and files that a _Keeper has kept."""

    def __init__(self, folder: Path, files: Files, moved: Moved) -> None:
        self._folder, self._files, self._moved = folder, files, moved

    def find_array(self, document: Any) -> NDArray[Any]:
        if "offset" not in document:
            return super().find_array(document)
        values = np.empty(document["shape"], ir.DataType[document["dtype"]].numpy())
        self._files.read_into(self._folder / _ARRAYS, document["offset"], values)
        return values

    def find_path(self, document: Any) -> Path:
        if isinstance(document, dict):
            kept: Path = self._folder / _KEPT / document["kept"]
            return kept
        path = super().find_path(document)
        return _now_at(path, self._moved) or path

    def find_file(self, document: Any) -> Path | bytes:
        if isinstance(document, dict) and "contents" in document:
            kept: Path = self._folder / _KEPT / document["contents"]
            return kept.read_bytes()
        return self.find_path(document)
