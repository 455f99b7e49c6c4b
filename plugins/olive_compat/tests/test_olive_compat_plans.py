"""Every pass that is kept or changed becomes a workflow that has a plan, also those that no public file has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drupe.api import plan_of, registry
from drupe_commands.workflow import request_of, workflow_from
from drupe_olive_compat.pass_table import PASSES
from drupe_olive_compat.reading import read

BUILDER: dict[str, Any] = {"type": "ModelBuilder", "precision": "int4"}
ROWS = {"name": "rows", "load_dataset_config": {"data_name": "owner/rows", "split": "train"}}
NEEDED: dict[str, dict[str, Any]] = {
    "ModelBuilder": {"precision": "int8"},
    **{kind: {"train_data_config": ROWS} for kind in ("LoRA", "QLoRA", "LoftQ", "DoRA", "LoHa", "LoKr")},
}
"""Options without which a pass makes no sense."""


def taken(graph: bool) -> list[str]:
    answers = {name: (rule.graph if graph and rule.graph else rule.built) for name, rule in PASSES.items()}
    return [name for name, answer in answers.items() if answer.handling != "missing"]


def planned(model: Path, *passes: dict[str, Any]) -> list[str]:
    """The passes of the plan for a file with these passes."""
    document = {"input_model": {"type": "HfModel"}, "passes": {f"p{at}": each for at, each in enumerate(passes)}}
    answer = read(document, str(model))
    assert answer is not None and answer[0] is not None, answer
    plan, _ = plan_of(request_of(workflow_from(answer[0], "file"), registry(), "file"), registry())
    return [each.name for each in plan.passes]


@pytest.mark.parametrize("name", taken(graph=False))
def test_a_pass_for_a_checkpoint_has_a_plan(name: str, decoder: Path) -> None:
    assert "build-decoder" in planned(decoder, {"type": name, **NEEDED.get(name, {})}, BUILDER)


@pytest.mark.parametrize("name", taken(graph=True))
def test_a_pass_for_a_graph_has_a_plan(name: str, graph: Path) -> None:
    assert "adopt-graph" in planned(graph, {"type": name, **NEEDED.get(name, {})})


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"type": "QuaRot", "seed": 3, "rotate_mode": "random"}, "rotate-weights"),
        ({"type": "GptqModel", "rotation": "hadamard", "sym": True, "bits": 4}, "rotate-weights"),
        ({"type": "AutoAWQQuantizer", "q_group_size": 64, "zero_point": False}, "scale-channels"),
        ({"type": "Gptq", "bits": 8, "group_size": 128}, "quantize-weights"),
        ({"type": "AutoClip", "n_grid": 10}, "quantize-weights"),
    ],
)
def test_options_that_no_public_file_has_lead_to_the_pass_that_they_ask_for(
    options: dict[str, Any], wanted: str, decoder: Path
) -> None:
    assert wanted in planned(decoder, options, BUILDER)
