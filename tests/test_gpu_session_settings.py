"""The settings of sessions on GPUs reach a package's files and both runtimes as these spell them, without a GPU."""

from __future__ import annotations

import json
from typing import Any

import pytest

from drupe.api import Target, registry
from drupe_onnx.session_options import GENAI, OWN, Tunable, options_in
from drupe_onnxruntime.plain.stated_options import with_stated
from drupe_onnxruntime.provider_options import genai_provider_options, onnxruntime_provider_options
from drupe_tune_session.session_file import with_changes
from drupe_tune_session.tunable_settings import known_settings, settings_to_try
from drupe_tune_session.tune_session import TuneSessionConfig

SPELLED: dict[str, dict[str, tuple[Any, str, str]]] = {
    "cuda": {
        "cuda_graph": (True, "enable_cuda_graph", "1"),
        "tunable_ops": (True, "tunable_op_enable", "1"),
        "tuning_of_ops": (True, "tunable_op_tuning_enable", "1"),
        "tf32": (False, "use_tf32", "0"),
        "nhwc": (True, "prefer_nhwc", "1"),
        "convolution_search": ("heuristic", "cudnn_conv_algo_search", "HEURISTIC"),
        "spinning": (False, "session.intra_op.allow_spinning", "0"),
    },
    "dml": {
        "gpu_spinning": (True, "ep.dml.enable_cpu_sync_spinning", "1"),
        "graph_capture": (False, "enable_graph_capture", "0"),
        "gpu_arena": (False, "ep.dml.disable_memory_arena", "1"),
        "graph_fusion": (False, "ep.dml.disable_graph_fusion", "1"),
        "metacommands": (False, "disable_metacommands", "true"),
        "spinning": (False, "session.intra_op.allow_spinning", "0"),
    },
}
CASES = [(provider, name, *spelled) for provider, each in SPELLED.items() for name, spelled in each.items()]


class Options:
    """Stands for onnxruntime's SessionOptions."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value


def package_of(provider: str) -> bytes:
    """The genai_config.json of a package for a provider, as far as it matters."""
    listed = genai_provider_options(target_of(provider))
    return json.dumps({"model": {"decoder": {"session_options": {"provider_options": listed}}}}).encode()


def target_of(provider: str) -> Target:
    made = registry().provider(provider)
    return Target(made.name, runtime_name=made.runtime_name, runtime_options=made.runtime_options())


@pytest.mark.parametrize("provider", SPELLED)
def test_every_setting_of_a_gpu_is_spelled_in_this_test(provider: str) -> None:
    made = registry().provider(provider)
    assert isinstance(made, Tunable) and {each.name for each in made.session_settings()} == set(SPELLED[provider])


@pytest.mark.parametrize(("provider", "name", "value", "option", "spelled"), CASES)
@pytest.mark.parametrize("file", [GENAI, OWN])
def test_a_setting_reaches_file_and_runtimes_as_they_spell_it(
    provider: str, name: str, value: Any, option: str, spelled: str, file: str
) -> None:
    known = known_settings(registry().provider(provider))
    before = package_of(provider) if file == GENAI else None
    content = with_changes(file, before, {name: value}, known)
    stated = options_in(file, content)
    assert known[name].value_in(stated) == value
    if "." in option:
        assert stated[option] == spelled
        assert with_stated(Options(), stated, None).entries[option] == spelled
    else:
        assert genai_provider_options(target_of(provider), stated)[0][provider][option] == spelled
        assert onnxruntime_provider_options(target_of(provider), stated)[option] == spelled
    again = with_changes(file, content, {name: known[name].default}, known)
    assert known[name].value_in(options_in(file, again)) == known[name].default


def test_what_may_fail_or_change_numbers_is_tried_only_where_the_user_asks_for_it() -> None:
    cuda, dml = registry().provider("cuda"), registry().provider("dml")
    tried = {each.name for made in (cuda, dml) for each in settings_to_try(made, TuneSessionConfig())}
    assert tried == {"spinning", "gpu_spinning"}
    asked = settings_to_try(cuda, TuneSessionConfig(values={"cuda_graph": ["on"]}))
    assert [(each.name, list(each.values)) for each in asked if each.provider] == [("cuda_graph", [True])]
