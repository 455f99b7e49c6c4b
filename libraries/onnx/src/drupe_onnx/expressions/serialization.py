"""Expressions as JSON, and back. Plugins' own expressions are found again by their import paths."""

from __future__ import annotations

import base64
import enum
import functools
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drupe.api import ModelError, Record
from drupe_onnx import ir
from drupe_onnx.expressions.expression import Expression


class Codec:
    """How the parts of an expression that are not plain JSON are kept; by default inside the JSON."""

    def keep_array(self, values: NDArray[Any]) -> Any:
        dtype = ir.DataType.from_numpy(values.dtype)
        data = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
        return {"dtype": dtype.name, "shape": list(values.shape), "base64": data}

    def find_array(self, document: Any) -> NDArray[Any]:
        raw = np.frombuffer(base64.b64decode(document["base64"]), np.uint8)
        return raw.view(ir.DataType[document["dtype"]].numpy()).reshape(document["shape"])

    def keep_path(self, path: Path) -> Any:
        return str(path.absolute())

    def find_path(self, document: Any) -> Path:
        return Path(document)


def to_json(expression: Expression, codec: Codec | None = None) -> Any:
    """`expression` as data for `json.dumps`."""
    return _to_json(expression, codec or Codec())


def from_json(document: Any, codec: Codec | None = None) -> Expression:
    """The expression that `to_json` was given. Raises ModelError for a kind of expression that is not installed."""
    expression = _from_json(document, codec or Codec())
    if not isinstance(expression, Expression):
        raise ModelError("the JSON is not a weight expression")
    return expression


def _to_json(value: Any, codec: Codec) -> Any:
    if isinstance(value, ir.DataType):
        return {"kind": "dtype", "name": value.name}
    if isinstance(value, enum.Enum):
        return {"kind": "enum", "type": _path_of(type(value)), "name": value.name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _to_json(value.item(), codec)
    if isinstance(value, tuple | list):
        return [_to_json(each, codec) for each in value]
    if isinstance(value, dict):
        return {"kind": "dict", "items": [[_to_json(key, codec), _to_json(each, codec)] for key, each in value.items()]}
    if isinstance(value, Path):
        return {"kind": "path", "path": codec.keep_path(value)}
    if isinstance(value, np.ndarray):
        return {"kind": "array", "array": codec.keep_array(value)}
    if isinstance(value, Record):
        fields = {name: _to_json(getattr(value, name), codec) for name in value.__struct_fields__}
        return {"kind": _path_of(type(value)), "fields": fields}
    raise TypeError(f"a {type(value).__name__} in a weight expression cannot be serialised")


def _from_json(value: Any, codec: Codec) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(each, codec) for each in value)
    if not isinstance(value, dict):
        return value
    match value["kind"]:
        case "dtype":
            return ir.DataType[value["name"]]
        case "enum":
            return _find(value["type"])[value["name"]]
        case "dict":
            return {_from_json(key, codec): _from_json(each, codec) for key, each in value["items"]}
        case "path":
            return codec.find_path(value["path"])
        case "array":
            return codec.find_array(value["array"])
        case kind:
            return _find(kind)(**{name: _from_json(each, codec) for name, each in value["fields"].items()})


def _path_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


@functools.cache
def _find(path: str) -> Any:
    """The class at an import path. Only records and enums are accepted: `to_json` writes no others."""
    module, _, name = path.partition(":")
    try:
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"the weight expression '{path}' is not installed",
            cure=f"install the plugin that brings the module '{module.split('.')[0]}'; drupe plugins lists them",
        ) from error
    if not (isinstance(found, type) and issubclass(found, (Record, enum.Enum))):
        raise ModelError(f"'{path}' is not a weight expression")
    return found
