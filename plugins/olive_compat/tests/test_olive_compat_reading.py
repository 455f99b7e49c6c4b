"""Reading: what becomes of the parts of a workflow file of Olive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drupe.api import Notice, UsageError
from drupe_olive_compat import harness
from drupe_olive_compat.pass_table import PASSES
from drupe_olive_compat.reading import read

LLAMA = {"type": "HfModel", "model_path": "meta-llama/Llama-3.2-1B-Instruct"}
GRAPH = {"type": "ONNXModel", "model_path": "model.onnx"}
BUILDER = {"type": "ModelBuilder", "precision": "int4"}


def answered(
    *passes: dict[str, Any], model: Any = LLAMA, provider: str = "CPUExecutionProvider", **keys: Any
) -> Answers:
    """The answer to a file with these passes, for a provider."""
    target = {"type": "LocalSystem", "accelerators": [{"execution_providers": [provider]}]}
    named = {f"p{number}": each for number, each in enumerate(passes)}
    return Answers.to({"input_model": model, "target": target, "passes": named, "output_dir": "OUT", **keys})


class Answers:
    """The answer to a document: its workflow and its notices."""

    def __init__(self, workflow: dict[str, Any] | None, notices: list[Notice]) -> None:
        self.workflow, self.notices = workflow, notices

    @classmethod
    def to(cls, document: dict[str, Any], model: str = "") -> Answers:
        answer = read(document, model)
        assert answer is not None
        return cls(*answer)

    @property
    def made(self) -> dict[str, Any]:
        assert self.workflow is not None, self.of("missing")
        return self.workflow

    def of(self, handling: str) -> list[str]:
        return [f"{each.about}: {each.what}" for each in self.notices if each.handling == handling]

    def at(self, place: str) -> list[Notice]:
        return [each for each in self.notices if each.about.startswith(place)]


def test_both_dialects_give_one_workflow() -> None:
    flat = answered({**BUILDER, "int4_block_size": 32})
    nested = Answers.to(
        {
            "input_model": {
                "type": "PyTorchModel",
                "config": {"hf_config": {"model_name": LLAMA["model_path"], "task": "text-generation"}},
            },
            "systems": {"here": {"type": "LocalSystem", "config": {"accelerators": ["cpu"]}}},
            "passes": {"p0": {"type": "GenAIModelExporter", "config": {"precision": "int4", "int4_block_size": 32}}},
            "engine": {"target": "here", "host": "here", "output_dir": "OUT", "cache_dir": "cache"},
        }
    )
    assert flat.made == nested.made
    assert flat.made["options"] == {"block_size": 32}
    assert flat.made["target"] == {"provider": "cpu", "precision": "int4"}


def test_a_placeholder_for_the_output_or_the_task_is_no_name() -> None:
    answers = answered(BUILDER, output_dir="<OUTPUT_DIR>")
    assert "output" not in answers.made and "placeholder" in str(answers.at("output_dir"))
    named = answered(BUILDER, model={**LLAMA, "task": "MODEL_TASK"})
    assert "placeholder" in str(named.at("input_model.task")) and named.workflow is not None


def test_a_captured_graph_is_tried_where_the_provider_declares_it() -> None:
    tunes = {"type": "OrtSessionParamsTuning", "enable_cuda_graph": True}
    on_gpu = answered(BUILDER, tunes, provider="CUDAExecutionProvider")
    assert on_gpu.made["settings"]["tune-session"]["values"] == {"cuda_graph": [True]}
    assert "values" not in answered(BUILDER, tunes).made["settings"]["tune-session"]


def test_documents_of_other_tools_are_not_claimed() -> None:
    for document in ({"model": "X", "target": "cpu"}, {"passes": ["build-decoder"]}, {"input_model": "X"}):
        assert read(document, "") is None


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("rtn", {"quality": "fast"}),
        ("default", {"quality": "fast"}),
        ("k_quant_last", {"quality": "fast", "method": "search", "head_bits": 8}),
        ("k_quant_mixed", {"quality": "balanced"}),
    ],
)
def test_the_algorithm_of_the_builder_becomes_a_quality(algorithm: str, options: dict[str, Any]) -> None:
    assert answered({**BUILDER, "int4_algo_config": algorithm}).made["options"] == options


def test_the_usual_chain_of_mixed_precision_becomes_a_budget() -> None:
    chain = (
        {"type": "SelectiveMixedPrecision", "algorithm": "kld_gradient", "ratio": 0.65, "group_size": 32, "sym": False},
        {"type": "gptq", "bits": 4, "group_size": 32, "sym": False},
        {"type": "rtn", "bits": 8, "lm_head": True, "embeds": True, "overrides": {"lm_head": {"bits": 8}}},
        BUILDER,
    )
    answers = answered(*chain)
    assert answers.made["options"] == {"symmetric": False, "bits_per_weight": 6.03, "quality": "best"}
    assert any("5.4" in each or "6.03" in each for each in answers.of("changed"))


def test_gptq_keeps_blocks_symmetry_and_the_bits_of_the_head() -> None:
    rtn = {"type": "Rtn", "bits": 4, "lm_head": True, "overrides": {"lm_head": {"bits": 4}}}
    answers = answered({"type": "Gptq", "group_size": 64, "sym": True, "damp_percent": 0.1}, rtn, BUILDER)
    assert answers.made["options"] == {"block_size": 64, "symmetric": True, "head_bits": 4, "quality": "best"}
    assert answers.made["settings"] == {"quantize-gptq": {"damping": 0.1}}


def test_a_data_set_of_the_hub_becomes_the_text_to_calibrate_with() -> None:
    config = {
        "name": "wiki",
        "type": "HuggingfaceContainer",
        "load_dataset_config": {"data_name": "wikitext", "subset": "wikitext-2-raw-v1", "split": "train[:100]"},
    }
    answers = answered({"type": "Gptq", "data_config": "wiki"}, BUILDER, data_configs=[config])
    assert answers.made["options"]["calibration_data"] == "Salesforce/wikitext:wikitext-2-raw-v1@train#text"
    cut = {**config, "pre_process_data_config": {"strategy": "join", "max_samples": 64, "max_seq_len": 512}}
    options = answered({"type": "Gptq", "data_config": "wiki"}, BUILDER, data_configs=[cut]).made["options"]
    assert (options["calibration_sequences"], options["calibration_length"]) == (64, 512)
    older = {"params_config": {"data_name": "imdb", "split": "test"}}
    answers = answered({"type": "Gptq", "data_config": "wiki"}, BUILDER, data_configs={"wiki": older})
    assert answers.made["options"]["calibration_data"] == "stanfordnlp/imdb@test#text"
    scripted = {**config, "user_script": "data.py"}
    assert "data.py" in str(
        answered({"type": "Gptq", "data_config": "wiki"}, BUILDER, data_configs=[scripted]).of("missing")
    )


def test_weights_of_8_bits_are_made_for_gpus_too() -> None:
    answers = answered({"type": "ModelBuilder", "precision": "int8"}, provider="CUDAExecutionProvider")
    assert answers.made["target"] == {"provider": "cuda", "precision": "int8"}


def test_float16_for_a_processor_is_made_and_said_to_be_computed_in_float32() -> None:
    answers = answered({"type": "ModelBuilder", "precision": "fp16"})
    assert answers.made["target"]["precision"] == "fp16"
    assert "computed in float32" in str(answers.of("changed"))


def test_nothing_is_left_to_fuse_after_the_builder_and_a_graph_is_not_fused() -> None:
    fusion = {"type": "OrtTransformersOptimization", "model_type": "gpt2"}
    assert "nothing is left to fuse" in str(answered(BUILDER, fusion).of("left out"))
    assert "fusing" in str(answered(fusion, model=GRAPH).of("missing"))
    assert answered({**fusion, "only_onnxruntime": True, "opt_level": 1}, model=GRAPH).workflow is not None


def test_graphs_are_quantized_as_olives_passes_for_graphs_say() -> None:
    rounded = answered({"type": "OnnxBlockWiseRtnQuantization", "bits": 8, "accuracy_level": 4}, model=GRAPH)
    assert rounded.made["target"]["precision"] == "int8" and rounded.made["model"] == "model.onnx"
    assert rounded.made["options"] == {"block_size": 128, "symmetric": True}
    assert rounded.made["settings"] == {"quantize-weights": {"accuracy_level": 4}}
    searched = answered({"type": "OnnxKQuantQuantization"}, model=GRAPH)
    assert searched.made["options"] == {"quality": "fast", "method": "search", "block_size": 32, "symmetric": False}


def test_a_python_file_is_never_run_and_is_named() -> None:
    scripted = {"type": "PyTorchModel", "model_script": "load.py", "model_loader": "load"}
    answers = answered(BUILDER, model=scripted)
    assert answers.workflow is None and "load.py" in str(answers.of("missing"))


def test_another_model_stands_in_for_the_files(decoder: Path) -> None:
    scripted = {"type": "PyTorchModel", "model_script": "load.py", "io_config": "io"}
    answers = Answers.to({"input_model": scripted, "passes": {"b": BUILDER}}, str(decoder))
    assert answers.made["model"] == str(decoder)
    broken = Answers.to({"input_model": LLAMA, "passes": {"b": BUILDER}}, str(decoder.parent))
    assert broken.workflow is None


@pytest.mark.parametrize("name", ["openai/whisper-tiny", "google-bert/bert-base-cased", "openai/clip-vit-base-patch32"])
def test_a_name_that_tells_of_an_architecture_that_is_not_built_is_said(name: str) -> None:
    answers = answered(BUILDER, model={**LLAMA, "model_path": name})
    assert answers.workflow is None and "is not built" in str(answers.of("missing"))


def test_what_a_name_tells_holds_for_a_model_that_the_user_names_too() -> None:
    answers = Answers.to({"input_model": LLAMA, "passes": {"b": BUILDER}}, "openai/whisper-tiny")
    assert answers.workflow is None and "is not built" in str(answers.of("missing"))


def test_a_pickled_model_is_not_read() -> None:
    answers = answered(BUILDER, model={"type": "PyTorchModel", "model_path": "model.pt"})
    assert answers.workflow is None and "pickled" in str(answers.of("missing"))


HARNESS = {"type": "LMEvaluator", "tasks": ["mmlu", {"task": "arc", "dataset": "x"}], "limit": 9, "batch_size": 4}


def test_tasks_of_lm_eval_are_measured_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluators = {"lm": HARNESS}
    monkeypatch.setattr(harness, "can_run", lambda: True)
    answers = answered(BUILDER, evaluators=evaluators, evaluator="lm")
    assert answers.workflow is not None
    assert answers.workflow["measure"] == {"lm-eval": {"tasks": HARNESS["tasks"], "limit": 9}}
    assert "mmlu, arc" in str(answers.of("changed")) and "batch_size" in str(answers.of("left out"))
    monkeypatch.setattr(harness, "can_run", lambda: False)
    answers = answered(BUILDER, evaluators=evaluators, evaluator="lm")
    assert answers.workflow is not None and "measure" not in answers.workflow
    (notice,) = (each for each in answers.notices if "mmlu, arc" in each.what)
    assert notice.handling == "left out" and notice.cure == "pip install 'drupe[lm-eval]'"


def test_tasks_that_are_not_run_are_named() -> None:
    evaluators = {"mt": {"type": "MTEBEvaluator", "tasks": ["STS17", "NFCorpus"]}}
    answers = answered(BUILDER, evaluators=evaluators, evaluator="mt")
    assert answers.workflow is not None and "STS17, NFCorpus" in str(answers.of("left out"))


def test_a_provider_that_is_not_installed_is_named_with_those_that_are() -> None:
    answers = answered(BUILDER, provider="QNNExecutionProvider")
    (missing,) = (each for each in answers.notices if each.handling == "missing")
    assert "QNNExecutionProvider" in missing.what and "cpu" in missing.cure


def test_a_file_that_makes_nothing_is_not_carried_out() -> None:
    assert "only evaluates" in str(answered().of("missing"))
    assert "no pass of the file makes an ONNX graph" in str(answered({"type": "Gptq"}).of("missing"))


def test_options_without_effect_at_a_precision_are_left_out_and_said() -> None:
    answers = answered({"type": "ModelBuilder", "precision": "fp32", "int4_block_size": 32})
    assert "options" not in answers.made and "no effect" in str(answers.of("left out"))


def test_unknown_passes_options_and_keys_are_named() -> None:
    answers = answered({**BUILDER, "nonsense": 3}, {"type": "AitkPython"}, strange=1)
    assert "AitkPython" in str(answers.at("p")) and answers.at("passes.p0.nonsense") and answers.at("strange")
    assert answers.workflow is None


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"input_model": LLAMA, "passes": {"a": "ModelBuilder"}}, "passes.a"),
        ({"input_model": LLAMA, "systems": [1]}, "systems"),
        ({"input_model": LLAMA, "target": "nowhere"}, "target"),
        ({"input_model": LLAMA, "passes": {"a": []}}, "passes.a"),
        ({"input_model": LLAMA, "data_configs": 3}, "data_configs"),
        ({"input_model": {"type": "PyTorchModel", "hf_config": 3}}, "input_model.hf_config"),
        (
            {"input_model": LLAMA, "passes": {"a": {**BUILDER, "int4_accuracy_level": "x"}}},
            "passes.a.int4_accuracy_level",
        ),
        ({"input_model": LLAMA, "passes": {"a": {"type": "SelectiveMixedPrecision", "ratio": []}}}, "passes.a.ratio"),
    ],
)
def test_parts_of_another_shape_are_errors_with_their_place(document: dict[str, Any], place: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(document, "")
    assert caught.value.where == place


def test_the_name_of_a_file_as_output_becomes_a_folder() -> None:
    answers = answered(BUILDER, output_dir="models/text.onnx")
    assert answers.made["output"] == "models/text" and "models/text" in str(answers.of("changed"))


def test_all_of_olives_passes_have_a_rule_with_a_cure_where_they_are_missing() -> None:
    assert len(PASSES) == 85
    for name, rule in PASSES.items():
        for answer in filter(None, (rule.built, rule.graph)):
            assert answer.what and (answer.handling != "missing" or answer.cure), name


def test_an_adapter_of_the_model_is_merged_while_the_checkpoint_is_read() -> None:
    made = answered({"type": "MergeAdapterWeights"}, BUILDER, model={**LLAMA, "adapter_path": "ADAPTER"})
    assert made.made["model"] == {"reference": LLAMA["model_path"], "adapter": "ADAPTER"}
    assert not made.of("missing")


@pytest.mark.parametrize(
    ("part", "options"),
    [
        ({"bits": "4", "block_size": "64", "is_symmetric": "false"}, {"block_size": 64, "symmetric": False}),
        ({"bits": 4.0, "block_size": 64.0, "is_symmetric": "True"}, {"block_size": 64, "symmetric": True}),
        ({"bits": None, "block_size": None, "is_symmetric": None}, {"block_size": 128, "symmetric": True}),
    ],
)
def test_texts_that_spell_a_value_are_this_value_and_null_is_none(part: dict[str, Any], options: Any) -> None:
    made = answered({"type": "OnnxBlockWiseRtnQuantization", **part}, BUILDER).made
    assert made["options"] == {**options, "quality": "fast"}
    assert type(made["options"]["block_size"]) is int


def test_null_names_neither_a_model_nor_an_adapter_nor_a_revision() -> None:
    model = {**LLAMA, "adapter_path": None, "load_kwargs": {"revision": None}}
    assert answered(BUILDER, model=model).made["model"] == LLAMA["model_path"]
    assert answered(BUILDER, model={**LLAMA, "model_path": None}).of("missing")


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"passes": [BUILDER]}, "passes"),
        ({"input_model": {"type": "HfModel", "model_path": ["a"]}}, "input_model.model_path"),
        ({"input_model": {**LLAMA, "load_kwargs": "float16"}}, "input_model.load_kwargs"),
        ({"passes": {"b": {**BUILDER, "extra_options": "a=b"}}}, "passes.b.extra_options"),
        ({"passes": {"b": BUILDER, "s": {"type": "GraphSurgeries", "surgeries": "Tie"}}}, "passes.s.surgeries"),
        ({"passes": {"b": {**BUILDER, "int4_is_symmetric": "maybe"}}}, "passes.b.int4_is_symmetric"),
        ({"passes": {"m": {"type": "SelectiveMixedPrecision", "ratio": 7}, "b": BUILDER}}, "passes.m.ratio"),
        ({"evaluators": {"e": {"metrics": {"type": "latency"}}}}, "evaluators.e.metrics"),
        ({"evaluators": {"e": {"metrics": ["other"]}}}, "evaluators.e.metrics"),
        ({"evaluator": "other"}, "evaluator"),
        ({"output_dir": ["a"]}, "output_dir"),
        ({"data_configs": [{"name": "d"}, {"name": "d"}]}, "data_configs.d"),
    ],
)
def test_a_value_of_another_kind_is_an_error_with_its_place(keys: dict[str, Any], place: str) -> None:
    with pytest.raises(UsageError) as caught:
        read({"input_model": LLAMA, "passes": {"b": BUILDER}, **keys}, "")
    assert caught.value.where == place


def test_a_builder_without_a_precision_is_not_guessed() -> None:
    for options in ({}, {"precision": None}, {"precision": "DEFAULT_VALUE"}):
        assert "p0.precision" in str(answered({"type": "ModelBuilder", **options}).of("missing"))
    assert answered({"type": "ModelBuilder", "metadata_only": True}, model=GRAPH).workflow is not None


def test_a_setting_that_stands_in_the_engine_as_well_is_said() -> None:
    answers = answered(BUILDER, engine={"output_dir": "ELSEWHERE", "log_severity_level": 0}, log_severity_level=0)
    assert answers.made["output"] == "OUT"
    assert [each for each in answers.of("changed") if "engine." in each] == [
        "engine.output_dir: output_dir stands at the top as well, and that one counts"
    ]


def test_a_metric_that_an_evaluator_names_is_that_at_the_top() -> None:
    metrics = [{"name": "speed", "type": "latency", "sub_types": [{"name": "avg"}]}]
    answers = answered(BUILDER, metrics=metrics, evaluators={"e": {"metrics": ["speed"]}}, evaluator="e")
    assert answers.made["measure"] == ["latency"]


def test_older_data_configs_say_how_much_text_is_used() -> None:
    older = {
        "d": {
            "name": "d",
            "params_config": {
                "data_name": "wikitext", "split": "train", "component_kwargs": {"pre_process_data": {"max_seq_len": 64}}
            },
            "components": {"pre_process_data": {"type": "text", "params": {"max_samples": 8}}},
        }
    }  # fmt: skip
    gptq = {"type": "Gptq", "config": {"bits": 4, "data_config": "d"}}
    options = answered(gptq, BUILDER, data_configs=older).made["options"]
    assert (options["calibration_length"], options["calibration_sequences"]) == (64, 8)
    assert options["calibration_data"] == "Salesforce/wikitext@train#text"


def test_a_file_for_webgpu_is_told_which_package_runs_there() -> None:
    answers = answered(BUILDER, provider="WebGpuExecutionProvider")
    (missing,) = [each for each in answers.notices if each.handling == "missing"]
    assert "CPUExecutionProvider in its place" in missing.cure and "docs/olive.md" in missing.cure
