"""The scheme of a node, as a pass that decides leaves it for a pass that quantizes."""

from __future__ import annotations

import json
from dataclasses import asdict

from drupe.api import ModelError
from drupe_blockquant import Scheme
from drupe_onnx import ir

SCHEME = "drupe.scheme"
"""The key of a node's metadata that holds, as JSON, how to quantize its weights: all of a Scheme but the method."""


def assign(node: ir.Node, scheme: Scheme) -> None:
    """Set the scheme that the weights of a node are to be quantized under."""
    node.metadata_props[SCHEME] = json.dumps({key: value for key, value in asdict(scheme).items() if key != "method"})


def assigned(node: ir.Node) -> Scheme | None:
    """The scheme that `assign` has set, its method left at the default. Raises ModelError for one that is none."""
    text = node.metadata_props.get(SCHEME)
    if text is None:
        return None
    try:
        return Scheme(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ModelError(f"the scheme of the node '{node.name}' ({SCHEME}) is broken: {text}") from error
