"""The keys that stand at the top of a file or in `engine`: what is done about each, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe_olive_compat.answers import OFF, Answer, is_off, left_out, missing

_NO_LOG = left_out("--log-level 0 to 2 says how much is printed")
_NO_CACHE = left_out("what is costly is kept in Drupe's own cache; DRUPE_CACHE names its folder")

SETTINGS: Mapping[str, Answer] = {
    "cache_dir": _NO_CACHE,
    "clean_cache": left_out("a cached result is used only where all that it depends on is the same"),
    "clean_evaluation_cache": left_out("evaluations are not cached"),
    "cache_config": _NO_CACHE,
    "enable_shared_cache": left_out("the cache is a folder; DRUPE_CACHE may name one on a shared disk"),
    "workflow_id": left_out("the cache needs no name"),
    "log_severity_level": _NO_LOG,
    "ort_log_severity_level": _NO_LOG,
    "ort_py_log_severity_level": _NO_LOG,
    "log_to_file": left_out("the output of drupe can be sent to a file: 2>&1 | tee FILE"),
    "no_artifacts": left_out("drupe.json in the package is the only record"),
    "plot_pareto_frontier": left_out("drupe run prints the frontier of a search, and drupe report OUT.study draws it"),
    "evaluate_input_model": left_out("a package is always compared with its source, which is measured for that"),
    "packaging_config": missing(
        "packing the result as an archive or an image", "leave it out, and pack the folder yourself"
    ),
    "pass_flows": missing("several chains of passes in one file", "one file for each chain"),
    "builds": missing("several builds in one file", "one file for each build"),
    "max_concurrent_builds": left_out("there is one build"),
    "auto_optimizer_config": missing("passes that Olive chooses", "name the passes, or use drupe optimize"),
    "azureml_client": left_out("nothing runs in Azure"),
    "workflow_host": left_out("everything runs here"),
    "data_root": left_out("nothing that is done here reads a data set of the file"),
    "$schema": left_out("the schema is Olive's"),
    "execution_providers": left_out("the target names the provider"),
    "ort_py_log_severity": _NO_LOG,
}

UNKNOWN = left_out("Olive has no such key")


def answer_to(name: str, value: Any) -> Answer:
    """What is done about a key that is not the output, the search, or what is measured."""
    if is_off(value):
        return OFF
    return SETTINGS.get(name, UNKNOWN)
