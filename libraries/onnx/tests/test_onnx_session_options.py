"""Session options: where they stand in a package, and settings of sessions and of providers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drupe.api import ModelError, UsageError
from drupe_onnx import OPTIMIZATION, SPINNING, THREADS, SessionSetting, Tunable, session_options
from drupe_onnx.session_options import COMMON, GENAI, OWN, options_file, options_in, with_options

GRAPHS = SessionSetting("graphs", "enable_cuda_graph", ("1",), default="0", provider="cuda")


def config(**options: Any) -> bytes:
    decoder = {"filename": "model.onnx", "session_options": options}
    return (json.dumps({"model": {"type": "llama", "decoder": decoder}}, indent=4) + "\n").encode()


def test_settings_are_written_in_onnxruntime_genais_words_and_read_again() -> None:
    options: dict[str, Any] = {}
    for setting, value in ((THREADS, 3), (SPINNING, False), (OPTIMIZATION, "basic"), (GRAPHS, "1")):
        setting.put_into(options, value)
        assert setting.value_in(options) == value
    assert options == {
        "intra_op_num_threads": 3,
        "session.intra_op.allow_spinning": "0",
        "graph_optimization_level": "ORT_ENABLE_BASIC",
        "provider_options": [{"cuda": {"enable_cuda_graph": "1"}}],
    }


def test_a_default_leaves_nothing_behind() -> None:
    options = options_in(GENAI, config(graph_optimization_level="ORT_DISABLE_ALL"))
    for setting in COMMON:
        setting.put_into(options, setting.default)
    assert options == {} and all(each.value_in({}) == each.default for each in COMMON)


def test_an_option_of_a_provider_goes_where_its_options_are() -> None:
    options: dict[str, Any] = {"provider_options": [{"CUDA": {"device_id": "0"}}, {"dml": {}}]}
    GRAPHS.put_into(options, "1")
    assert options["provider_options"] == [{"CUDA": {"device_id": "0", "enable_cuda_graph": "1"}}, {"dml": {}}]
    GRAPHS.put_into(options, "0")
    assert options["provider_options"] == [{"CUDA": {"device_id": "0"}}, {"dml": {}}]


def test_a_package_keeps_them_in_its_genai_config_or_in_a_file_of_its_own(tmp_path: Path) -> None:
    assert (options_file({GENAI: b""}), options_file({})) == (GENAI, OWN)
    assert session_options(tmp_path) == {}
    (tmp_path / OWN).write_bytes(with_options(OWN, None, {"intra_op_num_threads": 2}) or b"")
    assert session_options(tmp_path) == {"intra_op_num_threads": 2}
    (tmp_path / GENAI).write_bytes(with_options(GENAI, config(log_id="x"), {"intra_op_num_threads": 3}) or b"")
    assert session_options(tmp_path) == {"intra_op_num_threads": 3}
    assert with_options(OWN, b"{}", {}) is None
    assert with_options(GENAI, config(log_id="x"), {"log_id": "x"}) == config(log_id="x")


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"model": {"encoder": {}}}'])
def test_a_file_without_session_options_is_an_error(content: bytes) -> None:
    with pytest.raises(ModelError, match=GENAI):
        options_in(GENAI, content)


def test_values_are_those_of_the_setting() -> None:
    assert (SPINNING.valid("off"), SPINNING.valid(True), THREADS.valid(7)) == (False, True, 7)
    for setting, value in ((SPINNING, "maybe"), (SPINNING, 1), (OPTIMIZATION, "most")):
        with pytest.raises(UsageError, match=f"'{setting.name}'"):
            setting.valid(value)


def test_a_provider_is_tunable_by_its_method() -> None:
    class Acme:
        def session_settings(self) -> list[SessionSetting]:
            return [THREADS.trying(1)]

    assert isinstance(Acme(), Tunable) and not isinstance(object(), Tunable)
