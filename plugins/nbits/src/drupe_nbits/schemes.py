"""The scheme of a node, as a pass that decides leaves it for one that quantizes, and the method that finds levels."""

from __future__ import annotations

import json
from dataclasses import asdict

from drupe.api import ModelError
from drupe_blockquant import Scheme
from drupe_blockquant.scheme import Method
from drupe_onnx import ir

SCHEME = "drupe.scheme"
"""The key of a node's metadata that holds, as JSON, how to quantize its weights: all of a Scheme but the method."""

METHODS: dict[str, Method] = {"fast": "rtn", "balanced": "search", "best": "search"}
"""How levels of less than 8 bits are found, by the quality that is asked for."""


def method_for(bits: int, quality: str, method: Method | None = None) -> Method:
    """How levels are found. method: what was asked for instead of what the quality takes.

    8 bits are rounded to nearest: a search takes a tenth off an error that is 1/250 of that at 4 bits.
    """
    return "rtn" if bits == 8 else method or METHODS[quality]


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
