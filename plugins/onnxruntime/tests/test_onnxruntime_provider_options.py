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


def test_a_packages_own_options_for_the_targets_provider_hold_before_those_of_the_target() -> None:
    package = {"provider_options": [{"CUDA": {"device_id": "0", "use_tf32": "0"}}, {"dml": {"device_id": "7"}}]}
    merged = {"enable_cuda_graph": "0", "device_id": "0", "use_tf32": "0"}
    assert genai_provider_options(CUDA, package) == [{"cuda": merged}]
    assert onnxruntime_provider_options(CUDA, package) == merged
    assert onnxruntime_provider_options(Target("cpu"), package) == {}
    acme = Target("acme", runtime_name="AcmeExecutionProvider")
    assert onnxruntime_provider_options(acme, {"provider_options": [{"acme": {"clock": "eco"}}]}) == {"clock": "eco"}
