"""The evaluator `lm-eval` gives what lm-eval's own model `hf` gives for the checkpoint of a float package."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_checkpoint

import drupe
from drupe.api import RuntimeMissing, UsageError

WORDS = ("go", "text", "parse", "return", "for", "in", "def", "a template", "(", "]: ")
needs_library = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed (pip install 'lm-eval[hf]')"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("harness") / "model")


@pytest.fixture(scope="module")
def package(checkpoint: Path) -> Path:
    drupe.optimize(checkpoint, checkpoint.parent / "out", precision="fp32", verify=False)
    return checkpoint.parent / "out"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Task files over data of this machine: choices, texts, and answers that are written."""
    folder = tmp_path_factory.mktemp("tasks")
    documents = [
        {"question": f"def {word}(text)", "choices": [WORDS[(at + step) % 10] for step in (1, 3, 5)], "label": at % 3}
        for at, word in enumerate(WORDS)
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, documents)))
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "data.jsonl")}}}
    shared = {**data, "test_split": "test", "fewshot_split": "test", "doc_to_text": "{{question}}:"}
    means = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
    made = {
        "choices": {
            "output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "label",
            "target_delimiter": " ", "metric_list": means,
        },
        "texts": {
            "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{question}} " * 40,
            "metric_list": [{"metric": name} for name in ("word_perplexity", "bits_per_byte")],
        },
        "answers": {
            "output_type": "generate_until", "doc_to_target": "{{choices[0]}}",
            "generation_kwargs": {"until": ["\n", "go"], "max_gen_toks": 6},
            "metric_list": [{"metric": "exact_match"}],
        },
    }  # fmt: skip
    paths = {}
    for name, task in made.items():
        paths[name] = folder / f"{name}.yaml"
        paths[name].write_text(json.dumps({"task": name, **shared, **task}))  # JSON is YAML
    return paths


def own_model(checkpoint: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(checkpoint), device="cpu", batch_size=1, dtype="float32")


def expected(checkpoint: Path, task: Path, **settings: Any) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    settings |= {"task_manager": TaskManager(include_defaults=False), "bootstrap_iters": 100, "log_samples": False}
    results = lm_eval.simple_evaluate(own_model(checkpoint), tasks=[str(task)], **settings)
    (found,) = results["results"].values()
    return {key.partition(",")[0]: value for key, value in found.items() if not isinstance(value, str)}


def measured(package: Path, **settings: Any) -> dict[str, Any]:
    return {each.name: each for each in drupe.evaluate(package, evaluator="lm-eval", **settings)}


@needs_library
@pytest.mark.parametrize("settings", [{}, {"num_fewshot": 2, "limit": 7}], ids=["all", "examples"])
def test_choices_are_scored_as_lm_evals_own_model_scores_them(
    settings: dict[str, Any], checkpoint: Path, package: Path, tasks: dict[str, Path]
) -> None:
    own = expected(checkpoint, tasks["choices"], **settings)
    found = measured(package, tasks=str(tasks["choices"]), **settings)
    assert set(found) == {"acc", "acc_norm"} and 0 < own["acc"] < 1
    for name, metric in found.items():
        assert metric.value == own[name] and metric.better == "higher"
        assert metric.spread == pytest.approx(
            (own[name] - 1.96 * own[f"{name}_stderr"], own[name] + 1.96 * own[f"{name}_stderr"])
        )


@needs_library
def test_log_likelihoods_and_answers_are_those_of_lm_evals_own_model(checkpoint: Path, package: Path) -> None:
    from lm_eval.api.instance import Instance

    from drupe.api import Context, Model, Session, registry, resolve_package, runtime_for, target_of
    from drupe_eval_harness.adapter import PackageLM
    from drupe_eval_harness.settings import LmEvalConfig

    pairs = [("def go(text)", " return"), ("def go(text)", " a template"), ("", "parse"), ("go " * 200, "in text")]
    pairs += [("<|bos|>go", " for"), ("def go(text) ", "in")]
    texts = ["def parse(text): return", "go text " * 150]
    prompts = [("def parse", {"until": ["t"], "max_gen_toks": 8}), ("go " * 200, {"until": [], "max_gen_toks": 4})]

    def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        return [Instance(kind, {}, each, at) for at, each in enumerate(arguments)]

    model, found = resolve_package(str(package), registry()), registry()
    provider = found.provider("cpu")
    target = target_of(provider, found)

    def opened(each: Model) -> Session:
        return runtime_for(each, target, provider, found).open(each, target)

    context = Context(target, package.parent / "scratch", open=opened)
    own = own_model(checkpoint)
    with PackageLM(model, LmEvalConfig(), context) as lm:
        assert (lm.max_length, lm.eot_token_id, lm.prefix_token_id) == (
            own.max_length, own.eot_token_id, own.prefix_token_id,
        )  # fmt: skip
        ours, theirs = (each.loglikelihood(requests("loglikelihood", pairs)) for each in (lm, own))
        assert [likeliest for _, likeliest in ours] == [likeliest for _, likeliest in theirs]
        assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], rel=1e-4)
        rolling = requests("loglikelihood_rolling", [(text,) for text in texts])
        assert lm.loglikelihood_rolling(rolling) == pytest.approx(own.loglikelihood_rolling(rolling), rel=1e-4)
        answers = requests("generate_until", prompts)
        assert lm.generate_until(answers) == own.generate_until(answers)


@needs_library
def test_texts_and_answers_are_measured_and_told_apart(checkpoint: Path, package: Path, tasks: dict[str, Path]) -> None:
    own = expected(checkpoint, tasks["texts"])
    found = measured(package, tasks=[str(tasks["texts"]), str(tasks["answers"])])
    assert found["word_perplexity[texts]"].value == pytest.approx(own["word_perplexity"], rel=1e-3)
    assert found["word_perplexity[texts]"].better == "lower"
    assert found["bits_per_byte[texts]"].value == pytest.approx(own["bits_per_byte"], rel=1e-4)
    assert found["exact_match[answers]"].value == expected(checkpoint, tasks["answers"])["exact_match"]


@needs_library
def test_prompts_are_made_with_the_chat_template(checkpoint: Path, package: Path, tasks: dict[str, Path]) -> None:
    settings = {"apply_chat_template": True, "system_instruction": "go"}
    own = expected(checkpoint, tasks["choices"], num_fewshot=1, **settings)
    found = measured(package, tasks=str(tasks["choices"]), num_fewshot=1, **settings)
    assert found["acc"].value == own["acc"]


@needs_library
def test_tasks_that_cannot_be_run_are_named(package: Path, tasks: dict[str, Path], tmp_path: Path) -> None:
    gone = {**json.loads(tasks["choices"].read_text()), "dataset_kwargs": {"data_files": str(tmp_path / "gone.jsonl")}}
    greedy = {**json.loads(tasks["answers"].read_text()), "generation_kwargs": {"num_beams": 3}}
    for task, said in (
        ({}, "no task is named"),
        ({"tasks": "helaswag"}, "did you mean hellaswag"),
        ({"tasks": "nowhere.yaml"}, "no such task file"),
        ({"tasks": [gone]}, "cannot load the tasks or their data"),
        ({"tasks": [greedy]}, "num_beams"),
    ):
        with pytest.raises(UsageError, match=said):
            measured(package, **task)


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_lm_eval_the_error_says_what_to_install(package: Path) -> None:
    with pytest.raises(RuntimeMissing, match="lm-eval is not installed") as error:
        measured(package, tasks="hellaswag")
    assert error.value.cure == "pip install 'drupe[lm-eval]'"
