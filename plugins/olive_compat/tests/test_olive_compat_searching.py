"""Files that search: values, strategy, metrics and goals as a search of Drupe."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from drupe.api import Notice, UsageError, registry
from drupe_olive_compat import reading
from drupe_olive_compat.reading import read
from drupe_search_optuna.spaces import filled, parameters_in

LLAMA = {"type": "HfModel", "model_path": "meta-llama/Llama-3.2-1B-Instruct"}
EMBEDDING = {"type": "HfModel", "model_path": "Qwen/Qwen3-Embedding-0.6B"}
GRAPH = {"type": "ONNXModel", "model_path": "model.onnx"}
BUILDER: dict[str, Any] = {"type": "ModelBuilder", "precision": "int4"}
STRATEGY = {"execution_order": "joint", "sampler": "tpe", "max_samples": 3, "seed": 0}


def answered(
    *passes: dict[str, Any], model: Any = LLAMA, strategy: Any = STRATEGY, **keys: Any
) -> tuple[dict[str, Any], dict[str, Notice]]:
    """The workflow for passes of a file that searches, and its notices by their place."""
    named = {f"p{number}": each for number, each in enumerate(passes)}
    target = {"type": "LocalSystem", "accelerators": [{"execution_providers": ["CPUExecutionProvider"]}]}
    document = {"input_model": model, "passes": named, "target": target, "search_strategy": strategy, **keys}
    answer = read(document, "")
    assert answer is not None and answer[0] is not None, answer
    return answer[0], {notice.about: notice for notice in answer[1]}


def goals(*metrics: dict[str, Any], model: Any = LLAMA) -> tuple[list[Any], dict[str, Notice]]:
    """The goals that metrics become."""
    keys = {"evaluators": {"e": {"metrics": list(metrics)}}, "evaluator": "e"}
    workflow, notices = answered({**BUILDER, "int4_block_size": [32, 64]}, model=model, **keys)
    return workflow["search"].get("goals", []), notices


def metric(kind: str, *subs: str, goal: tuple[str, float] | None = None, **more: Any) -> dict[str, Any]:
    aim = {"goal": {"type": goal[0], "value": goal[1]}} if goal else {}
    return {"name": kind, "type": kind, "sub_types": [{"name": sub, **aim, **more} for sub in subs]}


def test_values_and_a_strategy_become_a_search() -> None:
    workflow, notices = answered({**BUILDER, "int4_block_size": [32, 64], "int4_accuracy_level": [0, 4]})
    assert workflow["options"] == {"block_size": [32, 64]}
    assert workflow["settings"] == {"quantize-weights": {"accuracy_level": [None, 4]}}
    assert workflow["search"] == {"order": "joint", "sampler": "tpe", "trials": 3, "seed": 0}
    assert "32, 64" in notices["passes.p0.int4_block_size"].what
    assert {f"search_strategy.{name}" for name in STRATEGY} <= notices.keys()


@pytest.mark.parametrize(
    ("strategy", "search"),
    [
        (True, {"sampler": "grid"}),
        ({"search_algorithm": "exhaustive", "execution_order": "Pass-By-Pass"}, {"sampler": "grid"}),
        (
            {"execution_order": "Pass-By-Pass", "search_algorithm": "tpe"},
            {"sampler": "tpe", "order": "pass-by-pass", "trials": 2},
        ),
        (
            {"execution_order": "pass-by-pass", "search_algorithm": "tpe", "max_time": 60},
            {"sampler": "tpe", "seconds": 60},
        ),
        ({"sampler": "random", "max_samples": 0}, {"sampler": "random", "trials": 2}),
        (
            {"sampler": "tpe", "max_time": 60, "sampler_config": {"seed": 7, "group": True}},
            {"sampler": "tpe", "seconds": 60, "seed": 7},
        ),
        (
            {"search_algorithm": "tpe", "search_algorithm_config": {"num_samples": 9}, "max_iter": 5},
            {"sampler": "tpe", "trials": 5},
        ),
    ],
)
def test_strategies_of_all_dialects_become_settings(strategy: Any, search: dict[str, Any]) -> None:
    workflow, _ = answered({**BUILDER, "int4_block_size": [32, 64]}, strategy=strategy)
    assert workflow["search"] == search


@pytest.mark.parametrize("strategy", [{"sampler": "best"}, {"execution_order": "x"}, {"max_samples": "all"}])
def test_a_strategy_that_does_not_exist_is_an_error_with_its_place(strategy: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        answered({**BUILDER, "int4_block_size": [32, 64]}, strategy=strategy)
    assert caught.value.where == f"search_strategy.{next(iter(strategy))}"


def test_the_word_for_searchable_values_is_those_of_olives_pass() -> None:
    workflow, _ = answered(
        {**BUILDER, "int4_block_size": "SEARCHABLE_VALUES", "int4_is_symmetric": "SEARCHABLE_VALUES"}
    )
    assert workflow["options"] == {"block_size": [32, 16, 64, 128, 256]}
    workflow, notices = answered({"type": "Gptq", "group_size": "SEARCHABLE_VALUES"}, BUILDER)
    assert workflow["options"]["block_size"] == [128, 16, 32, 64]
    assert "-1" in notices["passes.p0.group_size"].what
    fixed, _ = answered({**BUILDER, "int4_block_size": "SEARCHABLE_VALUES"}, strategy=None)
    assert "options" not in fixed


@pytest.mark.parametrize(
    "passes",
    [
        [{**BUILDER, "int4_block_size": [32, 64], "extra_options": {"int4_is_symmetric": [True, False]}}],
        [{**BUILDER, "precision": ["int8", "int4"], "int4_block_size": [128, 64]}],
        [{"type": "Gptq", "bits": [4, 8], "sym": [False, True]}, BUILDER],
        [{"type": "Gptq", "damp_percent": [0.1, 0.01], "group_size": [64, 32]}, BUILDER],
        [{"type": "Rtn", "bits": [8, 4], "group_size": [64, 32]}, BUILDER],
        [{"type": "SelectiveMixedPrecision", "ratio": [0.5, 0.9]}, {"type": "Gptq"}, BUILDER],
        [BUILDER, {"type": "OnnxBlockWiseRtnQuantization", "block_size": [16, 32], "accuracy_level": [4, 1]}],
        [{"type": "QuaRot", "seed": [0, 1]}, {**BUILDER, "int4_block_size": [32, 16]}],
        [{"type": "OnnxConversion"}, {"type": "OrtTransformersOptimization", "float16": [True, False]}],
    ],
)  # fmt: skip
def test_each_combination_of_a_search_is_the_workflow_of_the_file_with_these_values(
    passes: list[dict[str, Any]],
) -> None:
    searched, _ = answered(*passes)
    places = [
        (number, name, held)
        for number, each in enumerate(passes)
        for held in (each, each.get("extra_options", {}))
        for name, value in held.items()
        if isinstance(value, list)
    ]
    lists = [
        path for path, value in _leaves(searched) if isinstance(value, list) and path[-1] not in ("prepare", "goals")
    ]
    assert len(lists) == len(places)
    made = [
        _with(searched, dict(zip(lists, values, strict=True)))
        for values in itertools.product(*(dict(_leaves(searched))[path] for path in lists))
    ]
    for values in itertools.product(*(held[name] for _, name, held in places)):
        fixed = [{**each, "extra_options": dict(each.get("extra_options", {}))} for each in passes]
        for (number, name, held), value in zip(places, values, strict=True):
            inner = held is not passes[number]
            (fixed[number]["extra_options"] if inner else fixed[number])[name] = value
        alone = _with(answered(*fixed, strategy=None)[0], {})
        assert any(alone == each for each in made), (alone, made)


def _leaves(workflow: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for key, value in workflow.items():
        found += _leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]
    return found


def _with(workflow: dict[str, Any], values: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
    """The leaves with these values, without the search, and without what 8 bits take without effect."""
    leaves = {**{path: value for path, value in _leaves(workflow) if path[0] != "search"}, **values}
    if leaves["target", "precision"] == "int8":
        leaves.pop(("options", "quality"), None)
    return leaves


def test_a_value_that_changes_several_places_is_searched_with_all_of_them() -> None:
    passes = [
        {**BUILDER, "precision": "fp32"},
        {"type": "OnnxKQuantQuantization", "bits": [4, 8], "block_size": [16, 32]},
    ]
    workflow, notices = answered(*passes)
    assert workflow["search"]["together"] == {
        "bits": [{"options.method": "search", "target.precision": "int4"}, {"target.precision": "int8"}]
    }
    assert workflow["options"]["block_size"] == [16, 32]
    assert "searched as options.method and target.precision together: 4, 8" in notices["passes.p1.bits"].what
    workflow, notices = answered({**BUILDER, "int4_algo_config": ["rtn", "k_quant_last"], "int4_block_size": [64, 32]})
    assert len(workflow["search"]["together"]["int4_algo_config"]) == 2
    parameters = parameters_in(workflow, registry())
    for choice in parameters[-1].choices:
        made = filled(workflow, {"options.block_size": 64, parameters[-1].name: choice}, parameters)
        algorithm = "rtn" if choice is parameters[-1].choices[0] else "k_quant_last"
        alone, _ = answered({**BUILDER, "int4_algo_config": algorithm, "int4_block_size": 64}, strategy=None)
        assert _with(made, {}) == _with(alone, {})


def test_values_that_cannot_be_searched_are_named_with_the_reason() -> None:
    _, notices = answered({**BUILDER, "int4_block_size": [64, 33, 32], "int4_algo_config": ["rtn", "k_quant_last"]})
    assert "not searched: 33 (blocks of 33" in notices["passes.p0.int4_block_size"].what
    workflow, notices = answered(
        {"type": "OnnxKQuantQuantization", "bits": [2, 4], "block_size": [16, 32]}, model=GRAPH
    )
    assert workflow["target"]["precision"] == "int4" and "2 (weights of 2 bits)" in notices["passes.p0.bits"].what
    _, notices = answered({**BUILDER, "enable_cuda_graph": [True, False], "int4_block_size": [32, 64]})
    assert "no difference" in notices["passes.p0.enable_cuda_graph"].what


def test_a_value_whose_place_depends_on_another_searched_option_is_not_searched() -> None:
    """GPTQ makes 4 bits, and another pass rounds to 8, so each has an accuracy_level of its own."""
    workflow, notices = answered({"type": "Gptq", "bits": [8, 4]}, {**BUILDER, "int4_accuracy_level": [0, 4]})
    assert workflow["target"]["precision"] == ["int8", "int4"] and "settings" not in workflow
    assert "depends on another option" in notices["passes.p1.int4_accuracy_level"].what


def test_options_that_take_lists_are_not_searched() -> None:
    operators = ["MatMul", "Gather"]
    workflow, _ = answered({**BUILDER, "int4_op_types_to_quantize": operators, "int4_block_size": [32, 64]})
    assert workflow["options"] == {"block_size": [32, 64]}


def test_an_alternative_pass_is_not_searched_and_said() -> None:
    target = {"type": "LocalSystem", "accelerators": [{"device": "cpu"}]}
    passes = {"b": [{**BUILDER, "int4_block_size": [32, 64]}, {"type": "OnnxConversion"}]}
    answer = read({"input_model": LLAMA, "passes": passes, "target": target, "search_strategy": STRATEGY}, "")
    assert answer is not None and answer[0] is not None and answer[0]["options"] == {"block_size": [32, 64]}
    assert any("OnnxConversion" in each.what and each.handling == "left out" for each in answer[1])


@pytest.mark.parametrize(
    ("strategy", "why"),
    [(None, "has no search"), (False, "has no search"), ({"include_pass_params": False}, "include_pass_params")],
)
def test_without_a_search_of_options_the_first_values_count(strategy: Any, why: str) -> None:
    workflow, notices = answered({**BUILDER, "int4_block_size": [32, 64]}, strategy=strategy)
    assert workflow["options"] == {"block_size": 32} and "search" not in workflow
    assert "64" in notices["passes.p0.int4_block_size"].what and why in notices["passes.p0.int4_block_size"].what


def test_a_pass_that_is_not_to_be_searched_keeps_its_first_values() -> None:
    kept = {**BUILDER, "int4_block_size": [32, 64], "disable_search": True}
    workflow, notices = answered(kept, {"type": "QuaRot", "seed": [0, 1]})
    assert workflow["options"]["block_size"] == 32
    assert workflow["settings"]["rotate-weights"]["seed"] == [0, 1]
    assert "disable_search" in notices["passes.p0.int4_block_size"].what


def test_a_search_of_nothing_is_said() -> None:
    workflow, notices = answered(BUILDER)
    assert "search" not in workflow and "nothing to search" in notices["search_strategy"].what
    assert {f"search_strategy.{name}" for name in STRATEGY} <= notices.keys()


def test_where_nothing_searches_the_first_values_count_and_the_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "can_search", lambda: False)
    workflow, notices = answered({**BUILDER, "int4_block_size": [32, 64]})
    assert workflow["options"] == {"block_size": 32} and "search" not in workflow
    for place in ("passes.p0.int4_block_size", "search_strategy"):
        assert notices[place].cure == "pip install 'drupe[search]'"


def test_metrics_are_what_is_measured_and_optimized() -> None:
    found, notices = goals(
        metric("latency", "avg", "p90"), metric("throughput", "avg"), metric("size_on_disk", "bytes")
    )
    assert found == ["inter_token_mean", "inter_token_p90", "decode_rate", "bytes"]
    assert notices["evaluators.e.metrics.latency.avg"].handling == "changed"
    assert goals(metric("latency", "avg"), metric("accuracy", "f1_score"))[0] == ["inter_token_mean", "kl_divergence"]
    found, _ = goals(metric("latency", "max"), metric("throughput", "avg"), metric("accuracy", "x"), model=EMBEDDING)
    assert found == ["run_p99", "row_rate", "cosine_similarity"]


def test_a_search_measures_with_its_own_evaluators() -> None:
    keys = {"evaluators": {"e": {"metrics": [metric("latency", "avg")]}}, "evaluator": "e"}
    workflow, _ = answered({**BUILDER, "int4_block_size": [32, 64]}, **keys)
    assert workflow["search"]["evaluators"] == ["latency"] and "measure" not in workflow
    workflow, _ = answered(BUILDER, **keys)
    assert workflow["measure"] == ["latency"] and "search" not in workflow


@pytest.mark.parametrize(
    ("kind", "sub", "goal", "wanted", "handling"),
    [
        ("latency", "avg", ("threshold", 20), {"metric": "inter_token_mean", "max": 20}, "kept"),
        ("throughput", "avg", ("threshold", 20), {"metric": "decode_rate", "min": 20}, "kept"),
        ("size_on_disk", "bytes", ("percent-min-improvement", 1), {"metric": "bytes", "min_better": "1%"}, "changed"),
        ("latency", "avg", ("min-improvement", 2), {"metric": "inter_token_mean", "min_better": 2}, "changed"),
        ("accuracy", "perplexity", ("max-degradation", 0.5), {"metric": "perplexity", "max_worse": 0.5}, "changed"),
        ("latency", "p99", ("percent-max-degradation", 5), {"metric": "inter_token_p99", "max_worse": "5%"}, "changed"),
        ("accuracy", "f1_score", ("max-degradation", 0.05), "kl_divergence", "left out"),
        ("latency", "avg", ("nearest", 5), "inter_token_mean", "left out"),
    ],
)  # fmt: skip
def test_goals_become_limits_relative_to_the_first_trial(
    kind: str, sub: str, goal: tuple[str, float], wanted: Any, handling: str
) -> None:
    found, notices = goals(metric(kind, sub, goal=goal))
    assert found == [wanted]
    told = notices[f"evaluators.e.metrics.{kind}.{sub}.goal"]
    assert told.handling == handling and ("first trial" in told.what) == (handling == "changed")


def test_what_has_no_priority_only_keeps_to_its_limits() -> None:
    speed = metric("latency", "avg", priority=1)
    found, _ = goals(speed, metric("throughput", "avg", goal=("threshold", 5)), metric("size_on_disk", "bytes"))
    assert found == ["inter_token_mean", {"metric": "decode_rate", "min": 5, "optimize": False}]


def test_a_direction_that_the_file_turns_is_kept() -> None:
    found, _ = goals(
        metric("latency", "avg", higher_is_better=True), metric("throughput", "avg", higher_is_better=True)
    )
    assert found == [{"metric": "inter_token_mean", "better": "higher"}, "decode_rate"]


def test_the_task_of_a_model_that_is_here_says_which_metrics_there_are(decoder: Path, graph: Path) -> None:
    speed = metric("latency", "avg")
    assert goals(speed, model={"type": "HfModel", "model_path": str(decoder)})[0] == ["inter_token_mean"]
    keys = {"evaluators": {"e": {"metrics": [speed]}}, "evaluator": "e"}
    quantizer = {"type": "OnnxBlockWiseRtnQuantization", "block_size": [16, 32]}
    here, _ = answered(quantizer, model={"type": "ONNXModel", "model_path": str(graph)}, **keys)
    assert here["search"]["goals"] == ["inter_token_mean"]
    elsewhere, _ = answered(quantizer, model=GRAPH, **keys)
    assert "goals" not in elsewhere["search"] and elsewhere["search"]["evaluators"] == ["latency"]
