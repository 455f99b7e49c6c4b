"""The settings of a session on CUDA, as onnxruntime and onnxruntime-genai spell them.

What has values is tried by `tune-session`; the rest is known, and tried where the user names values. Left out is
`arena_extend_strategy`: onnxruntime takes a name for it and onnxruntime-genai a number, and it does not change how fast
a session decodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe_onnx import SPINNING, SessionSetting

_SWITCH = {True: "1", False: "0"}


def _option(name: str, option: str, default: Any, words: Mapping[Any, str] = _SWITCH) -> SessionSetting:
    return SessionSetting(name, option, default=default, words=words, provider="cuda")


SETTINGS = (
    SPINNING.trying(False),
    # Replays the kernels of a token without launching them one by one. It is not tried by itself: sizes have to stay
    # the same in the whole session, and a graph with a node on the processor is refused.
    _option("cuda_graph", "enable_cuda_graph", False),
    # Both belong together: the second finds the fastest product of matrices for each new size, in the first runs.
    _option("tunable_ops", "tunable_op_enable", False),
    _option("tuning_of_ops", "tunable_op_tuning_enable", False),
    # Products in float32 with fewer bits, and convolutions: no decoder that Drupe makes for CUDA has either.
    _option("tf32", "use_tf32", True),
    _option("nhwc", "prefer_nhwc", False),
    _option(
        "convolution_search",
        "cudnn_conv_algo_search",
        "exhaustive",
        {"exhaustive": "EXHAUSTIVE", "heuristic": "HEURISTIC", "default": "DEFAULT"},
    ),
)
