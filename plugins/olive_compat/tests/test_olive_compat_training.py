"""Files that train an adapter, or that have one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import drupe
from drupe.api import Notice, registry
from drupe_commands.workflow import request_of, workflow_from
from drupe_olive_compat.reading import read

LLAMA = {"type": "HfModel", "model_path": "meta-llama/Llama-3.2-1B-Instruct"}
GRAPH = {"type": "ONNXModel", "model_path": "model.onnx"}
BUILDER = {"type": "ModelBuilder", "precision": "int4"}

ROWS = {"name": "rows", "load_dataset_config": {"data_name": "o/n", "subset": "small", "split": "train[:10]"}}
TRAINS = {"train_data_config": "rows"}


@dataclass(frozen=True)
class Answers:
    """The answer to a file: its workflow and its notices."""

    workflow: dict[str, Any] | None
    notices: list[Notice]

    @property
    def made(self) -> dict[str, Any]:
        assert self.workflow is not None, self.of("missing")
        return self.workflow

    def of(self, handling: str) -> str:
        return "\n".join(f"{each.about}: {each.what}" for each in self.notices if each.handling == handling)


def answered(*passes: dict[str, Any], model: Any = LLAMA, **keys: Any) -> Answers:
    named = {f"p{number}": each for number, each in enumerate(passes)}
    answer = read({"input_model": model, "passes": named, "output_dir": "OUT", **keys}, "")
    assert answer is not None
    return Answers(*answer)


def trained(kind: str, data: Any = ROWS, **options: Any) -> Answers:
    return answered({"type": kind, **TRAINS, **options}, BUILDER, data_configs=[data])


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("LoRA", {"method": "lora", "dropout": 0.05}),
        ("qlora", {"method": "qlora", "dropout": 0.05}),
        ("DoRA", {"method": "dora", "dropout": 0.05}),
        ("LoftQ", {"method": "lora", "init": "loftq", "loftq_iterations": 1, "dropout": 0.05}),
        ("LoHa", {"method": "loha"}),
        ("LoKr", {"method": "lokr"}),
    ],
)
def test_each_pass_that_trains_becomes_the_pass_finetune_with_olives_defaults(kind: str, own: dict[str, Any]) -> None:
    made = trained(kind).made
    assert made["options"] == {"train_on": "o/n:small@train[:10]"}
    ours = {"rank": 64, "alpha": 16, "epochs": 3.0, "column": "text", "packing": True}
    assert made["settings"]["finetune"] == {**own, **ours, "training": {"lr_scheduler_type": "constant"}}


def test_arguments_of_training_go_to_the_settings_or_to_transformers_and_each_has_a_line() -> None:
    arguments = {
        "per_device_train_batch_size": 4, "max_steps": 9, "num_train_epochs": 2, "seed": 3, "learning_rate": 1,
        "logging_steps": 5, "output_dir": "logs", "bf16": True, "warmup_ratio": 0.1, "weight_decay": 0.1,
        "extra_args": {"adam_beta1": 0.8}, "lr_scheduler_type": "cosine", "optim": "paged_adamw_32bit",
    }  # fmt: skip
    answers = trained("LoRA", training_args=arguments)
    settings = answers.made["settings"]["finetune"]
    ours = {"batch_size": 4, "max_steps": 9, "epochs": 2.0, "seed": 3, "learning_rate": 1.0}
    assert settings.items() >= ours.items()
    assert settings["training"] == {
        "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "weight_decay": 0.1, "adam_beta1": 0.8
    }  # fmt: skip
    for name in (*arguments, "adam_beta1"):
        assert name == "extra_args" or f"passes.p0.training_args.{name}" in [each.about for each in answers.notices]


def test_options_of_pefts_configuration_are_handed_on_by_name() -> None:
    options = {"rank_dropout": 0.1, "module_dropout": 0.2, "decompose_both": True, "modules_to_save": ["lm_head"]}
    settings = trained("LoKr", **options, target_modules=["q_proj"]).made["settings"]["finetune"]
    assert (settings["dropout"], settings["targets"]) == (0.1, ["q_proj"])
    assert settings["peft"] == {"module_dropout": 0.2, "decompose_both": True, "modules_to_save": ["lm_head"]}


@pytest.mark.parametrize(
    ("processing", "settings"),
    [
        ({"strategy": "line-by-line", "max_seq_len": 256}, {"packing": False, "max_length": 256, "column": "text"}),
        ({"text_cols": ["q", "a"], "max_samples": 8}, {"template": "{q} {a}", "max_sequences": 8}),
        ({"text_template": "Q {q}"}, {"template": "Q {q}"}),
        ({"chat_template": True, "message_col": "chat"}, {"messages": "chat"}),
    ],
)
def test_a_row_becomes_text_as_the_data_config_says(processing: dict[str, Any], settings: dict[str, Any]) -> None:
    made = trained("LoRA", {**ROWS, "pre_process_data_config": processing}).made["settings"]["finetune"]
    assert made.items() >= settings.items()


@pytest.mark.parametrize(
    ("loading", "said"),
    [
        ({"data_name": "json", "data_files": ["a.jsonl", "b.jsonl"]}, "some files"),
        ({"data_name": "o/n", "col_filters": {"lang": "en"}}, "column's value"),
        ({"data_name": "nobodys"}, "whose owner is not known"),
        ({}, "names no data set"),
    ],
)
def test_data_that_cannot_be_had_are_missing(loading: dict[str, Any], said: str) -> None:
    assert said in trained("LoRA", {"name": "rows", "load_dataset_config": loading}).of("missing")
    assert "no data" in answered({"type": "LoRA"}, BUILDER).of("missing")


def test_what_is_trained_twice_or_is_a_graph_is_refused_and_what_is_quantized_first_is_said() -> None:
    lora = {"type": "LoRA", **TRAINS}
    assert "twice" in answered(lora, lora, BUILDER, data_configs=[ROWS]).of("missing")
    assert "training a graph" in answered(lora, model=GRAPH, data_configs=[ROWS]).of("missing")
    assert "before its weights" in answered({"type": "Rtn"}, lora, BUILDER, data_configs=[ROWS]).of("changed")


def test_an_adapter_of_the_model_stays_beside_it_where_the_file_extracts_it() -> None:
    extract = {"type": "ExtractAdapters", "make_inputs": True}
    model = {**LLAMA, "adapter_path": "some/adapter"}
    assert answered(BUILDER, extract, model=model).made["model"]["adapters"] == ["some/adapter"]
    for passes in ((BUILDER,), ({"type": "MergeAdapterWeights"}, BUILDER, extract)):
        assert answered(*passes, model=model).made["model"]["adapter"] == "some/adapter"
    dora = answered(BUILDER, {**extract, "adapter_type": "dora"}, model=model)
    assert dora.made["model"]["adapter"] == "some/adapter" and "merged" in dora.of("changed")
    assert "no adapter" in answered(BUILDER, extract).of("left out")


def test_an_adapter_that_the_file_trains_stays_beside_the_model_where_it_is_extracted() -> None:
    lora, extract = {"type": "LoRA", **TRAINS, "r": 8}, {"type": "ExtractAdapters"}
    answers = answered(lora, BUILDER, extract, data_configs=[ROWS])
    assert answers.made["options"] == {"train_on": "o/n:small@train[:10]", "keep_adapter": "adapter"}
    assert [*answers.made["settings"]] == ["train-adapter"] and answers.made["settings"]["train-adapter"]["rank"] == 8
    assert "merged" not in answers.of("kept")
    both = answered(lora, BUILDER, extract, model={**LLAMA, "adapter_path": "one"}, data_configs=[ROWS]).made
    assert both["model"]["adapter"] == "one" and both["options"]["keep_adapter"] == "adapter"
    tried = answered(
        {**lora, "r": [8, 16]}, BUILDER, extract, data_configs=[ROWS], search_strategy={"sampler": "tpe"}
    ).made
    assert tried["settings"]["train-adapter"]["rank"] == [8, 16]
    others: list[dict[str, Any]] = [{"type": "DoRA"}, {"type": "LoftQ"}, {"type": "LoRA", "modules_to_save": ["x"]}]
    for each in others:
        merged = answered({**TRAINS, **each}, BUILDER, extract, data_configs=[ROWS])
        assert [*merged.made["settings"]] == ["finetune"] and "merged into the weights" in merged.of("changed")
    merging = answered(lora, {"type": "MergeAdapterWeights"}, BUILDER, extract, data_configs=[ROWS])
    assert [*merging.made["settings"]] == ["finetune"]


def test_several_ranks_are_searched() -> None:
    told = answered({"type": "LoRA", **TRAINS, "r": [8, 16]}, BUILDER, data_configs=[ROWS], search_strategy={}).made
    found = answered(
        {"type": "LoRA", **TRAINS, "r": [8, 16]}, BUILDER, data_configs=[ROWS], search_strategy={"sampler": "tpe"}
    ).made
    assert told["settings"]["finetune"]["rank"] == 8 and found["settings"]["finetune"]["rank"] == [8, 16]


def test_a_file_that_trains_has_a_plan_and_one_with_an_adapter_too(decoder: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": "a row"}) + "\n", "utf-8")
    data = {"name": "rows", "load_dataset_config": {"data_name": "json", "data_files": str(rows)}}
    made = {**trained("LoftQ", data).made, "model": str(decoder)}
    request = request_of(workflow_from(made, "file"), registry(), "file")
    plan = drupe.plan(
        decoder, provider="cpu", precision=request.precision, settings=request.settings, **request.options
    )
    assert plan.passes[0].name == "finetune" and plan.passes[0].config["data"] == str(rows)
