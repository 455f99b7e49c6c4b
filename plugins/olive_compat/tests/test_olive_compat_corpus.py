"""The public workflow files of Olive's recipes: each is answered, in time, and nothing in it is passed over in silence.

The files are third-party material and not in the repository. They lie in `shared/olive` beside the checkout, or where
the variable DRUPE_OLIVE_FILES says; where they are not, these tests are skipped.
"""

from __future__ import annotations

import json
import os
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from drupe.api import Notice, plan_of, registry
from drupe_commands.workflow import request_of, workflow_from
from drupe_olive_compat.passes import NESTED
from drupe_olive_compat.reading import read

PLACES = [Path(os.environ.get("DRUPE_OLIVE_FILES", "-")), *(each / "shared/olive" for each in Path(__file__).parents)]
FILES = next((place for place in PLACES if (place / "corpus.tar.xz").is_file()), None)
pytestmark = pytest.mark.skipif(
    FILES is None, reason="Olive's workflow files are not here (DRUPE_OLIVE_FILES names them)"
)
OURS = ("CPU", "CUDA", "DML", "WebGPU")
WHOLE = {"CPU": 37, "CUDA": 49, "DML": 5, "WebGPU": 32}
"""How many files with passes are carried out whole, by what they are for: where a provider for that is installed."""
WEBGPU = "webgpuexecutionprovider"
PER_FILE = 1.0
"""Seconds that a file may take. All are read in one process, so its start-up is not counted."""


@dataclass(frozen=True)
class Case:
    """A file, what is known of it, and the answer to it."""

    facts: Mapping[str, Any]
    document: dict[str, Any]
    workflow: dict[str, Any] | None
    notices: list[Notice]
    seconds: float

    @property
    def missing(self) -> list[Notice]:
        return [notice for notice in self.notices if notice.handling == "missing"]

    @property
    def path(self) -> str:
        return str(self.facts["path"])

    @property
    def has_passes_for_us(self) -> bool:
        return self.facts["group"] in OURS and bool(self.facts["passes"])


@cache
def cases() -> tuple[Case, ...]:
    return tuple(_cases())


def _cases() -> Iterator[Case]:
    assert FILES is not None
    with tarfile.open(FILES / "corpus.tar.xz") as archive:
        held = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        for facts in json.loads((FILES / "recipes.json").read_text("utf-8")):
            file = held[f"olive-recipes/{facts['path']}"]
            assert file is not None
            document = json.loads(file.read())
            started = time.process_time()
            answer = read(document, "")
            assert answer is not None, facts["path"]
            yield Case(facts, document, *answer, time.process_time() - started)


def test_all_files_are_answered_in_time() -> None:
    assert len(cases()) == 700
    slow = [(case.path, case.seconds) for case in cases() if case.seconds > PER_FILE]
    assert not slow


def test_a_file_is_carried_out_whole_or_says_what_is_missing_and_what_to_do() -> None:
    for case in cases():
        assert (case.workflow is None) == bool(case.missing), case.path
        assert all(notice.cure for notice in case.missing), case.path


def test_the_files_for_processors_and_gpus_that_are_carried_out_whole_are_these_many() -> None:
    ours = [case for case in cases() if case.has_passes_for_us]
    assert len(ours) == 297
    installed = {name for entry in registry().providers for name in entry.ref.names}
    expected = {group: count for group, count in WHOLE.items() if group != "WebGPU" or WEBGPU in installed}
    assert Counter(case.facts["group"] for case in ours if case.workflow is not None) == expected
    only_a_provider = [case for case in ours if case.missing and all("WebGpu" in each.what for each in case.missing)]
    assert len(only_a_provider) == (0 if WEBGPU in installed else WHOLE["WebGPU"])


def test_no_file_that_needs_a_python_file_is_carried_out_and_the_file_is_named() -> None:
    for case in cases():
        if case.facts["needs_script"]:
            assert case.workflow is None, case.path
        for key in ("model_script", "model_loader"):
            if value := _options(case.document["input_model"]).get(key):
                assert any(str(value) in notice.what for notice in case.missing), case.path


def test_files_in_which_every_option_has_several_values_are_answered_in_time() -> None:
    searching = 0
    for case in cases():
        passes = {name: _with_several_values(part) for name, part in (case.document.get("passes") or {}).items()}
        started = time.process_time()
        answer = read({**case.document, "passes": passes, "search_strategy": {"sampler": "tpe"}}, "")
        assert answer is not None and time.process_time() - started < PER_FILE, case.path
        searching += answer[0] is not None and "search" in answer[0]
    assert searching > 30


def _with_several_values(part: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [value, not value] if isinstance(value, bool) else [value, 32, 64] if isinstance(value, int) else value
        for name, value in part.items()
    }


def test_documents_that_look_like_workflows_and_are_none_are_not_claimed() -> None:
    assert FILES is not None
    with tarfile.open(FILES / "corpus.tar.xz") as archive:
        held = {member.name: archive.extractfile(member) for member in archive if member.name.endswith(".json")}
        known = {f"olive-recipes/{case.path}" for case in cases()}
        others = {name: json.loads(file.read()) for name, file in held.items() if file and name not in known}
    assert len(others) == 4
    assert [name for name, document in others.items() if read(document, "") is not None] == []


def test_every_key_of_every_file_has_an_answer() -> None:
    silent: Counter[str] = Counter()
    for case in cases():
        places = [notice.about for notice in case.notices]
        for wanted in _wanted(case):
            if not any(place == wanted or place.startswith((f"{wanted}.", f"{wanted} ")) for place in places):
                silent[wanted] += 1
    assert not silent, silent.most_common(20)


def _wanted(case: Case) -> Iterator[str]:
    """The places of a file that need an answer: its keys, and the options of its model and of passes that are taken."""
    engine = case.document.get("engine") or {}
    for key, value in {**engine, **case.document}.items():
        if key in ("input_model", "engine"):
            continue
        if key in ("systems", "evaluators", "passes"):
            yield from (f"{key}.{name}" for name in value or {})
        elif key == "data_configs":
            yield from (f"{key}.{each['name']}" for each in value or ())
        elif value is not None:
            yield key
    for option in _options(case.document["input_model"]):
        if option != "onnx_file_name":
            yield f"input_model.{option}"
    heads = {notice.about.partition(" (")[0]: notice for notice in case.notices if " (" in notice.about}
    for name, part in (case.document.get("passes") or {}).items():
        head = heads.get(f"passes.{name}")
        if head is not None and head.handling in ("kept", "changed"):
            for option, value in _options(part).items():
                nested = option in NESTED and isinstance(value, dict)
                yield from (
                    [f"passes.{name}.{option}.{each}" for each in value] if nested else [f"passes.{name}.{option}"]
                )


def _options(part: Mapping[str, Any]) -> dict[str, Any]:
    outer = {key: value for key, value in part.items() if key not in ("type", "config")}
    return {**outer, **(part.get("config") or {})}


def test_every_workflow_that_a_file_becomes_has_a_plan_for_a_decoder(decoder: Path, graph: Path) -> None:
    """The models of the files are not here: a small decoder stands for each, as a checkpoint or as a graph."""
    kinds: dict[str, tuple[dict[str, Any], str]] = {}
    for case in cases():
        if case.workflow is not None:
            is_graph = str(case.facts["input_type"]).casefold() == "onnxmodel"
            workflow = {**case.workflow, "model": str(graph if is_graph else decoder), "output": ""}
            kinds.setdefault(json.dumps(workflow, sort_keys=True), (workflow, case.path))
    assert len(kinds) > 15
    for workflow, path in kinds.values():
        plan, _ = plan_of(request_of(workflow_from(workflow, path), registry(), path), registry())
        assert plan.passes, path
