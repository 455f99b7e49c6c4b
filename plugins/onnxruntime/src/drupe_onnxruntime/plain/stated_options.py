"""The session options that a package states, for onnxruntime: the file has onnxruntime-genai's names and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import ModelError

PLAIN = ("inter_op_num_threads", "intra_op_num_threads", "enable_cpu_mem_arena", "enable_mem_pattern")
"""Options that are alike in both."""
NAMED = {"graph_optimization_level": "GraphOptimizationLevel", "execution_mode": "ExecutionMode"}
"""Options whose values are names, with the class of onnxruntime that has them."""


def with_stated(options: Any, stated: Mapping[str, Any], module: Any) -> Any:
    """onnxruntime's SessionOptions with what a package states. Options of onnxruntime-genai alone have no effect.

    Raises ModelError for a value that onnxruntime does not know.
    """
    for name, value in stated.items():
        try:
            if name in PLAIN:
                setattr(options, name, value)
            elif name in NAMED:
                setattr(options, name, getattr(getattr(module, NAMED[name]), value))
            elif "." in name:
                options.add_session_config_entry(name, str(value))
        except (AttributeError, TypeError) as error:
            raise ModelError(
                f"the session option {name} = {value!r} is not one that onnxruntime knows",
                cure="mend the package's session options, or make it again with drupe optimize",
            ) from error
    return options
