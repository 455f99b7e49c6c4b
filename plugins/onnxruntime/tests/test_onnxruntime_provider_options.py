"""A target's provider options in the form of each runtime."""

from __future__ import annotations

from drupe.api import Target
from drupe_onnxruntime.provider_options import genai_provider_options, onnxruntime_provider_options

CUDA = Target("cuda", runtime_options={"cuda": {"enable_cuda_graph": False, "device_id": 1}})


def test_onnxruntime_genai_gets_options_as_text_under_the_providers_name() -> None:
    assert genai_provider_options(CUDA) == [{"cuda": {"enable_cuda_graph": "0", "device_id": "1"}}]
    assert genai_provider_options(Target("dml", runtime_options={"dml": {}})) == [{"dml": {}}]


def test_onnxruntime_gets_options_without_the_providers_name() -> None:
    assert onnxruntime_provider_options(CUDA) == {"enable_cuda_graph": "0", "device_id": "1"}


def test_the_cpu_provider_has_no_options() -> None:
    assert genai_provider_options(Target("cpu")) == []
    assert onnxruntime_provider_options(Target("cpu")) == {}
