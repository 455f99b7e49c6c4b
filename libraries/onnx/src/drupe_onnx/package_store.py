"""Keeping a lazy package: graphs without weights, expressions as JSON, and bytes that exist nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError
from drupe_onnx import ir
from drupe_onnx.expressions.expression import Expression
from drupe_onnx.expressions.fingerprints import file_stamp
from drupe_onnx.expressions.serialization import Codec, from_json, to_json
from drupe_onnx.expressions.sources import Array
from drupe_onnx.files import Files, link_or_copy
from drupe_onnx.layout import INLINE, reference, serialized
from drupe_onnx.package import OnnxPackage, initializers_of
from drupe_onnx.weights import LazyWeight, expression_of

_VERSION = 1
_DOCUMENT, _ARRAYS, _KEPT = "package.json", "arrays.data", "kept"


def store_package(package: OnnxPackage, folder: Path, scratch: Path) -> None:
    """Keep the package in `folder`, which may be moved afterwards.

    Files under `scratch`, which will be removed, are copied; others are referred to by path, size and time.
    """
    with (folder / _ARRAYS).open("wb") as arrays:
        keeper = _Keeper(folder, scratch, arrays)
        components = {
            name: _store_graph(folder / f"{name}.onnx", model, keeper) for name, model in package.components.items()
        }
        files = {name: keeper.keep_file(content) for name, content in package.files.items()}
    document = {"version": _VERSION, "components": components, "files": files, "sources": sorted(keeper.stamps)}
    (folder / _DOCUMENT).write_text(json.dumps(document), encoding="utf-8")


def restore_package(folder: Path) -> OnnxPackage:
    """The package that `store_package` kept. Raises ModelError where a file that it refers to has changed."""
    document = json.loads((folder / _DOCUMENT).read_text(encoding="utf-8"))
    for path, size, changed in document["sources"]:
        if file_stamp(Path(path)) != (path, size, changed):
            raise ModelError(
                f"'{Path(path).name}' has changed since this model was made from it",
                where=path,
                cure="run the command again",
            )
    with Files() as files:
        finder = _Finder(folder, files)
        components = {
            name: _restore_graph(folder / f"{name}.onnx", expressions, finder)
            for name, expressions in document["components"].items()
        }
        return OnnxPackage(components, {name: finder.find_file(kept) for name, kept in document["files"].items()})


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

    def __init__(self, folder: Path, files: Files) -> None:
        self._folder, self._files = folder, files

    def find_array(self, document: Any) -> NDArray[Any]:
        if "offset" not in document:
            return super().find_array(document)
        values = np.empty(document["shape"], ir.DataType[document["dtype"]].numpy())
        self._files.read_into(self._folder / _ARRAYS, document["offset"], values)
        return values

    def find_path(self, document: Any) -> Path:
        return self._folder / _KEPT / document["kept"] if isinstance(document, dict) else super().find_path(document)

    def find_file(self, document: Any) -> Path | bytes:
        if isinstance(document, dict) and "contents" in document:
            kept: Path = self._folder / _KEPT / document["contents"]
            return kept.read_bytes()
        return self.find_path(document)
