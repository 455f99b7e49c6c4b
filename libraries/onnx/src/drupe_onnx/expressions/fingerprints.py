"""Fingerprints of expressions: a digest of an expression and of the stamps of the files that it reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from drupe_files import file_stamp
from drupe_onnx.expressions.expression import Expression
from drupe_onnx.expressions.serialization import Codec, to_json
from drupe_onnx.expressions.sources import Array


def fingerprint(expression: Expression, stamp: Callable[[Path], Any] = file_stamp) -> str:
    """SHA-256 of the expression. stamp: gives the text that represents a file's content.

    Raises ModelError for a file that does not exist.
    """
    document = to_json(expression, _Stamps(stamp))
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


class _Stamps(Codec):
    def __init__(self, stamp: Callable[[Path], Any]) -> None:
        self._stamp = stamp

    def keep_array(self, values: NDArray[Any]) -> Any:
        return Array(values).digest

    def keep_path(self, path: Path) -> Any:
        return self._stamp(path)
