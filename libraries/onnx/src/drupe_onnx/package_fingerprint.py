"""The fingerprint of a package: a digest of everything that decides what the package computes."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

from drupe_files import file_digest, quick_digest, unreadable
from drupe_onnx import ir
from drupe_onnx.expressions.fingerprints import fingerprint
from drupe_onnx.layout import reference, serialized
from drupe_onnx.package import OnnxPackage, initializers_of
from drupe_onnx.weights import expression_of


def fingerprint_of(package: OnnxPackage, thorough: bool) -> str:
    """A digest of the graphs, of the weights' expressions, and of the files.

    Without `thorough`, only samples of large files are read.
    """
    stamp = functools.cache(functools.partial(_digest_of, thorough=thorough))
    digest = hashlib.sha256()
    for name, component in package.components.items():
        weights = [expression_of(value) for value in initializers_of(component)]
        digest.update(name.encode())
        digest.update(_without_weights(component))
        digest.update(json.dumps([weight and fingerprint(weight, stamp) for weight in weights]).encode())
    for name, content in sorted(package.files.items()):
        held = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else stamp(content)
        digest.update(json.dumps([name, held]).encode())
    return digest.hexdigest()


def _digest_of(path: Path, thorough: bool) -> str:
    try:
        return file_digest(path) if thorough else quick_digest(path)
    except OSError as error:
        raise unreadable(path, error) from error


def _without_weights(model: ir.Model) -> bytes:
    """The graph for a digest; of the weights, only names, types and shapes are included."""
    values = list(initializers_of(model))
    return serialized(model, [reference(value, "", 0, 0) if expression_of(value) else None for value in values])
