"""The session options of a package in onnxruntime."""

from __future__ import annotations

import pytest

from drupe.api import ModelError
from drupe_onnxruntime.plain.stated_options import with_stated

onnxruntime = pytest.importorskip("onnxruntime")


def test_options_of_onnxruntime_genai_become_those_of_onnxruntime() -> None:
    stated = {
        "log_id": "onnxruntime-genai",
        "inter_op_num_threads": 3,
        "enable_mem_pattern": False,
        "graph_optimization_level": "ORT_ENABLE_BASIC",
        "execution_mode": "ORT_PARALLEL",
        "session.intra_op.allow_spinning": "0",
        "provider_options": [],
    }
    options = with_stated(onnxruntime.SessionOptions(), stated, onnxruntime)
    assert options.inter_op_num_threads == 3 and options.enable_mem_pattern is False
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize(
    "stated", [{"graph_optimization_level": "MOST"}, {"graph_optimization_level": 99}, {"enable_mem_pattern": "maybe"}]
)
def test_a_value_that_onnxruntime_does_not_know_is_an_error(stated: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=next(iter(stated))):
        with_stated(onnxruntime.SessionOptions(), stated, onnxruntime)
