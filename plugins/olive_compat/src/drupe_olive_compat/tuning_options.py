"""The options of Olive's session tuning: what is done about each, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import UsageError
from drupe_olive_compat.answers import OFF, Answer, changed, is_off, kept, left_out
from drupe_olive_compat.chain import Chain
from drupe_olive_compat.components import Component
from drupe_olive_compat.options import CAPTURE, Treatment, declares, says, unless_off, whole

TUNES = "tune-session"
"""The pass of Drupe."""
LEVELS = {0: "disabled", 1: "basic", 2: "extended", 99: "all"}
MODES = {0: "sequential", 1: "parallel"}


def tries(setting: str, words: Mapping[int, str] | None = None) -> Treatment:
    """Try these values of a setting. words: what Drupe calls Olive's numbers."""

    def treat(chain: Chain, value: Any, place: str) -> Answer:
        if is_off(value):
            return OFF
        numbers = [whole(each, place) for each in (value if isinstance(value, list) else [value])]
        if words and (strange := [each for each in numbers if each not in words]):
            known = ", ".join(f"{number} ({word})" for number, word in words.items())
            raise UsageError(f"{strange[0]} is none of onnxruntime's values", where=place, cure=known)
        values = [words[each] if words else each for each in numbers]
        chain.settings.setdefault(TUNES, {}).setdefault("values", {})[setting] = values
        return kept(f"values of {setting} that are tried: {', '.join(map(str, values))}")

    return treat


def _provider(chain: Chain, value: Any, place: str) -> Answer:
    listed = value if isinstance(value, list) else [value]
    if len(listed) > 1:
        return changed("the target's provider is tuned, and no other", "a package for each provider")
    return kept("the target's provider is tuned")


def _graph_capture(chain: Chain, value: Any, place: str) -> Answer:
    """Replaying a graph that was captured, where the target's provider has such a setting."""
    if is_off(value):
        return OFF
    if not declares(chain, CAPTURE):
        return left_out("the target's provider captures no graphs")
    chain.settings.setdefault(TUNES, {}).setdefault("values", {})[CAPTURE] = [True]
    return kept(f"values of {CAPTURE} that are tried: on")


TUNING: Mapping[str, Treatment] = {
    "intra_thread_num_list": tries("threads"),
    "inter_thread_num_list": tries("inter_op_threads"),
    "opt_level_list": tries("graph_optimization_level", LEVELS),
    "execution_mode_list": tries("execution_mode", MODES),
    "cpu_cores": unless_off(changed("as many threads as the process may use, and fewer, are tried")),
    "data_config": unless_off(changed("random tokens are timed, a prompt and an answer of usual lengths")),
    "device": says(kept("the target's device")),
    "providers_list": _provider,
    "provider_options_list": unless_off(left_out("what the provider declares is tried")),
    "io_bind": unless_off(left_out("sessions keep their caches on the device in any case")),
    "enable_cuda_graph": _graph_capture,
    "trt_fp16_enable": unless_off(left_out("there is no provider for TensorRT")),
    "extra_session_config": unless_off(
        left_out("other entries are not written", "session_options in the package's genai_config.json")
    ),
    "force_evaluate_other_eps": unless_off(left_out("the target's provider is tuned, and no other")),
    "enable_profiling": unless_off(left_out("nothing is profiled; times with their spread are in drupe.json")),
}


def tuning(chain: Chain, part: Component) -> None:
    """The file asks for it, so that it is done for small packages too."""
    chain.settings.setdefault(TUNES, {})["when"] = "always"
