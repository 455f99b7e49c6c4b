"""`drupe run` on a workflow file of Olive, from the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
SEED: dict[str, Any] = {
    "input_model": {
        "type": "PyTorchModel",
        "config": {"hf_config": {"model_name": "meta-llama/Llama-3.2-1B-Instruct", "task": "text-generation"}},
    },
    "systems": {
        "local_system": {
            "type": "LocalSystem",
            "config": {"accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]},
        }
    },
    "evaluators": {
        "common": {
            "metrics": [
                {
                    "name": "latency",
                    "type": "latency",
                    "sub_types": [{"name": "avg", "goal": {"type": "percent-min-improvement", "value": 10}}],
                }
            ]
        }
    },
    "passes": {
        "builder": {"type": "ModelBuilder", "config": {"precision": "int4"}},
        "fusion": {"type": "OrtTransformersOptimization", "config": {"model_type": "gpt2", "opt_level": 0}},
    },
    "engine": {
        "search_strategy": {"execution_order": "joint", "search_algorithm": "tpe"},
        "evaluator": "common",
        "host": "local_system",
        "target": "local_system",
        "cache_dir": "cache",
        "output_dir": "models/llama",
    },
}


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "drupe", "run", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    file = tmp_path / "seed.json"
    file.write_text(json.dumps(SEED), "utf-8")
    return file


def test_a_file_with_engine_evaluator_and_search_runs_as_it_stands(seed: Path, decoder: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "--config", seed, "--model", decoder)
    assert done.returncode == 0, done.stderr
    package = tmp_path / "models" / "llama"
    assert json.loads((package / "drupe.json").read_text("utf-8"))["plan"]["target"]["precision"] == "int4"
    for said in ("nothing is left to fuse", "'tpe'", "'joint'", "measured of the finished", "cache_dir"):
        assert said in done.stderr
    assert "runs it" in done.stdout
    assert "inter token mean" in done.stdout.partition("runs it")[2]


def test_a_file_that_searches_is_searched_and_its_saved_workflow_is_the_same_search(
    seed: Path, decoder: Path, tmp_path: Path
) -> None:
    builder = {**SEED["passes"]["builder"]["config"], "int4_algo_config": "rtn", "int4_block_size": [64, 128]}
    goal = {"name": "avg", "goal": {"type": "percent-max-degradation", "value": 1000}}
    evaluators = {"common": {"metrics": [{"name": "latency", "type": "latency", "sub_types": [goal]}]}}
    passes = {"builder": {"type": "ModelBuilder", "config": builder}}
    strategy = {"search_algorithm": "exhaustive", "search_algorithm_config": {"num_samples": 2}}
    engine = {**SEED["engine"], "search_strategy": strategy}
    searching = {**SEED, "passes": passes, "evaluators": evaluators, "engine": engine}
    seed.write_text(json.dumps(searching), "utf-8")
    done = run(tmp_path, seed, "--model", decoder, "--save-plan", "ours.yaml")
    assert done.returncode == 0, done.stderr
    study = json.loads((tmp_path / "models" / "llama.study" / "study.json").read_text("utf-8"))
    assert [trial["values"] for trial in study["trials"]] == [{"options.block_size": size} for size in (64, 128)]
    assert all("inter_token_mean" in trial["metrics"] for trial in study["trials"])
    assert (tmp_path / "models" / "llama" / "drupe.json").is_file()
    told = json.loads(run(tmp_path, "ours.yaml", "--dry-run", "--json").stdout)
    assert told["parameters"] == study["parameters"] and told["settings"] == study["settings"]


def test_a_dry_run_looks_for_no_model_and_takes_little_time(seed: Path, tmp_path: Path) -> None:
    run(tmp_path, seed, "--dry-run")  # the first one may compile bytecode
    before = os.times()
    done = run(tmp_path, seed, "--dry-run")
    after = os.times()  # of the processor: other work on the machine does not count
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert done.returncode == 0 and spent < 3
    assert "as a workflow file of Drupe" in done.stdout and not (tmp_path / "models").exists()


def test_a_saved_workflow_says_the_same_as_the_file(seed: Path, decoder: Path, tmp_path: Path) -> None:
    told = json.loads(run(tmp_path, seed, "--model", decoder, "--dry-run", "--json").stdout)
    for name in ("ours.yaml", "ours.json"):
        assert run(tmp_path, seed, "--model", decoder, "--dry-run", "--save-plan", name).returncode == 0
        assert yaml.safe_load((tmp_path / name).read_text("utf-8")) == told["workflow"]
    plans = [json.loads(run(tmp_path, *each, "--plan", "--json").stdout)["plan"] for each in
             ((seed, "--model", decoder), ("ours.yaml",))]  # fmt: skip
    assert plans[0] == plans[1]


def test_a_file_with_something_missing_is_not_carried_out_and_says_how_to_see_all(seed: Path, tmp_path: Path) -> None:
    seed.write_text(json.dumps({**SEED, "passes": {"a": {"type": "LoRA"}, "b": {"type": "SparseGPT"}}}), "utf-8")
    done = run(tmp_path, seed, "--save-plan", "ours.yaml")
    assert done.returncode == 2 and not (tmp_path / "ours.yaml").exists()
    assert f"{seed}, at passes.a" in done.stderr and "--dry-run" in done.stderr and "more" in done.stderr
    assert "SparseGPT" in run(tmp_path, seed, "--dry-run").stdout


def test_an_error_in_the_file_names_the_file(seed: Path, tmp_path: Path) -> None:
    seed.write_text(json.dumps({**SEED, "passes": {"a": "ModelBuilder"}}), "utf-8")
    done = run(tmp_path, seed, "--dry-run")
    assert done.returncode == 2 and str(seed) in done.stderr and "passes.a" in done.stderr


def test_the_table_of_passes_in_the_docs_is_fresh() -> None:
    """`python tools/olive_passes.py` writes it."""
    spec = importlib.util.spec_from_file_location("olive_passes_tool", ROOT / "tools" / "olive_passes.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text("utf-8") == tool.page()
