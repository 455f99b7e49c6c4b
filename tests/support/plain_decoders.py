"""Running a decoder's graph without Drupe's own code: what it is given, and how it computes exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


def decoder_feed(session: Any, tokens: npt.ArrayLike) -> dict[str, npt.NDArray[Any]]:
    """The inputs of an open session of onnxruntime for tokens [tokens] or [rows, tokens], behind empty caches."""
    rows = np.atleast_2d(np.asarray(tokens, np.int64))
    plain = {
        "input_ids": rows,
        "attention_mask": np.ones_like(rows),
        "position_ids": np.tile(np.arange(rows.shape[1]), (len(rows), 1)),
    }
    return {
        each.name: plain[each.name]
        if each.name in plain
        else np.zeros((len(rows), each.shape[1], 0, each.shape[3]), np.float32)
        for each in session.get_inputs()
    }


def exactly_computing(package: Path) -> Path:
    """The package's graph, with float activations in its products."""
    model = ir.load(package / "model.onnx")
    for node in model.graph:
        if node.op_type == "MatMulNBits":
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 0)
    (package / "exact").mkdir()
    ir.save(model, package / "exact" / "model.onnx", external_data="model.onnx.data")
    return package / "exact"
