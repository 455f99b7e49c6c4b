"""Olive's command lines: what `drupe` makes of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from drupe.api import UsageError
from drupe_olive_compat import harness
from drupe_olive_compat.answers import KEPT
from drupe_olive_compat.command_lines import read_line
from drupe_olive_compat.flag_table import COMMANDS, NOT_DONE
from drupe_olive_compat.flags import MANY, NONE, OURS

OWN = frozenset(
    {"-m", "--model-name-or-path", "-o", "--output", "--output-path", "--provider", "--device", "--precision",
     "--prepare", "--block-size", "--exporter", "--plan", "--log-level", "--force", "--set", "--evaluator"}
)  # fmt: skip
"""Some flags of Drupe's own commands."""


def read(line: str, own: frozenset[str] | None = OWN) -> list[str]:
    """What becomes of a line without quotes."""
    return told(line.split(), own)[0]


def told(words: Sequence[str], own: frozenset[str] | None = OWN) -> tuple[list[str], list[str]]:
    """The arguments, and what is said of flags, with how each is handled."""
    answer = read_line(words[0], list(words[1:]), None if words[0] not in (*OURS, "auto-opt") else own)
    assert answer is not None
    return answer[0], [f"{each.about}: {each.handling}" for each in answer[1] if each.handling != KEPT]


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("optimize M -o OUT --force", "optimize M -o OUT --force"),
        ("optimize -m M --output_path=OUT --precision int8", "optimize -m M --output_path OUT --precision int8"),
        ("optimize -m M -o OUT --prec int4 --prov X", "optimize -m M -o OUT --precision int4 --provider X"),
        ("optimize -m M --o OUT --set a.b=-1", "optimize -m M -o OUT --set a.b=-1"),
        ("optimize M -o OUT --exporter mine", "optimize M -o OUT --exporter mine"),
        ("optimize M -o OUT --exporter model_builder", "optimize M -o OUT"),
        ("optimize M -o OUT --log-level 2", "optimize M -o OUT --log-level 2"),
        ("optimize M -o OUT --log_level 0", "optimize M -o OUT --log-level 2"),
        ("optimize M -o OUT --log_level=4", "optimize M -o OUT --log-level 0"),
        ("optimize M -o OUT --dry_run", "optimize M -o OUT --plan"),
        ("optimize -m M -o OUT --adapter_path A", "optimize -m M -o OUT --adapter A"),
        ("auto-opt -m M -o OUT -a A --precision int4", "auto-opt -m M -o OUT --adapter A --precision int4"),
        ("optimize M -o OUT -- --memory", "optimize M -o OUT -- --memory"),
        ("optimize M -o OUT --precision uint4", "optimize M -o OUT --precision int4 --asymmetric"),
        (
            "optimize M -o OUT --extra_mb_options int4_block_size=64,int4_is_symmetric=true",
            "optimize M -o OUT --block-size 64 --symmetric",
        ),
        ("optimize -m https://huggingface.co/a/b/tree/main -o OUT", "optimize -o OUT -m a/b"),
        (
            "auto-opt -m M --use_ort_genai --use_model_builder --precision int4",
            "auto-opt -m M --precision int4 -o auto-opt-output",
        ),
        ("run --run-config F", "run --run-config F"),
        ("run --conf F", "run --config F"),
        ("run-pass NAME MODEL -o OUT", "run-pass NAME MODEL -o OUT"),
        ("run-pass NAME -m MODEL -o OUT", "run-pass NAME -o OUT MODEL"),
        ("run-pass --list-passes", "passes"),
        (
            "tune-session-params -m M -o OUT --intra_thread_num_list 1 2 --opt_level_list 99 --io_bind",
            'run-pass tune-session M -o OUT --set values={"threads":[1,2],"graph_optimization_level":["all"]}',
        ),
        ("convert-adapters -a A -o F --adapter_format onnx_adapter", "convert-adapters -a A -o F"),
        ("extract-adapters -m M -o O -f onnx_adapter --dtype float16", "extract-adapters -m M -o O"),
        ("generate-adapter -m M -o O --adapter_type lora", "extract-adapters -m M -o O"),
        (
            "tune-session-params -m M --providers_list CPUExecutionProvider",
            "run-pass tune-session M -o tuned-inference-settings --provider CPUExecutionProvider",
        ),
    ],
)  # fmt: skip
def test_a_line_becomes_one_of_drupes(line: str, arguments: str) -> None:
    own = OWN - {"-m", "--model-name-or-path"} if line.startswith("run-pass") else OWN
    own = own | {"--config", "--run-config"} if line.startswith("run ") else own
    own = own | {"-a", "--adapter-path"} if line.startswith("convert-adapters") else own
    assert read(line, own) == arguments.split()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("optimize M -o OUT", []),
        ("optimize M -o OUT --trust_remote_code -t text-generation", ["--trust_remote_code: left out", "-t: left out"]),
        ("auto-opt -m M", ["--output_path: changed", "--precision: changed"]),
        (
            "auto-opt -m M -o O --precision int4 --input_cols a b -d x --disable_telemetry",
            ["--input_cols: left out", "-d: left out"],
        ),
        ("optimize -m M -o O --extra_mb_options use_webgpu_fp32=1", ["--extra_mb_options use_webgpu_fp32: left out"]),
    ],
)  # fmt: skip
def test_what_is_changed_or_left_out_is_said_by_its_flag(line: str, said: list[str]) -> None:
    assert told(line.split())[1] == said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("optimize -m M -o O --precision nf4 --act_precision int8", ("nf4", "--act_precision", "int4, int8")),
        ("optimize -m M -o O --model_script a.py", ("--model_script", "code")),
        ("auto-opt -m M --dynamic-to-fixed-shape-dim-param a b --use_qdq_encoding", ("fixing", "--use_qdq_encoding")),
        ("optimize -m M -o O --pr x", ("--precision, --prepare, --provider",)),
        ("optimize -m M -o O --log_level 5", ("5 is no level", "0 debug")),
        ("optimize -m M -o O --extra_mb_options a", ("no option of the builder",)),
        ("optimize -m M -o O -t translation", ("translation",)),
        ("optimize -m azureml://registries/r/models/m -o O", ("Azure",)),
        ("run --config F --setup", ("--setup",)),
        ("quantize -m M --algorithm foo", ("'foo'", "rtn, gptq")),
        ("quantize -m M --precision fp16", ("fp16", "int4 or int8")),
        ("quantize --algorithm rtn", ("no model is named", "drupe quantize -m MODEL")),
        ("run-pass --pass-name Rtn --pass-config {x -m M", ("not JSON", "--pass-config")),
        ("tune-session-params -m M --opt_level_list 7", ("7 is none", "99 (all)")),
        ("benchmark -m M --adapter_path A", ("--adapter_path", "--adapter DIR")),
        ("convert-adapters -a A -o O --quantize_int4", ("--quantize_int4", "stay in floating point")),
        ("extract-adapters -m M -o O -f safetensors", ("safetensors", "onnx_adapter")),
        ("generate-adapter -m M --adapter_type dora", ("dora", "lora")),
    ],
)  # fmt: skip
def test_what_is_not_done_is_refused_by_its_name(line: str, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as raised:
        read(line)
    for word in words:
        assert word in str(raised.value)


def test_a_command_that_is_not_olives_is_left_alone() -> None:
    assert read_line("generate", ["OUT", "--log_level", "4"], frozenset({"--log-level"})) is None
    assert read_line("frobnicate", [], None) is None


@pytest.mark.parametrize("command", NOT_DONE)
def test_a_command_that_is_not_done_is_refused_unless_drupe_has_it(command: str) -> None:
    with pytest.raises(UsageError, match=f"^{command} is a command of Olive"):
        read_line(command, ["-m", "M"], None)
    if command in COMMANDS:
        assert read_line(command, ["A", "-m", "M", "--limit", "3"], frozenset({"--limit"})) == (
            [command, "A", "--limit", "3", "M"], []
        )  # fmt: skip
    else:
        assert read_line(command, ["-m", "M"], frozenset({"-m"})) is None


def test_tasks_of_lm_eval_are_measured_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["-m", "M", "--tasks", "arc_easy", "hellaswag", "--limit", "16"]
    monkeypatch.setattr(harness, "can_run", lambda: True)
    read = read_line("benchmark", words, frozenset())
    assert read is not None and " ".join(read[0]) == (
        "evaluate M --evaluator lm-eval --set lm-eval.tasks=arc_easy,hellaswag --set lm-eval.limit=16"
    )
    monkeypatch.setattr(harness, "can_run", lambda: False)
    with pytest.raises(UsageError, match=r"--tasks .* lm-eval is not installed"):
        read_line("benchmark", words, frozenset())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_done_or_said_or_refused(command: str) -> None:
    """Each alone, with a value that most take: no flag is passed on to a command that does not know it."""
    for flag in COMMANDS[command].flags:
        values = {NONE: [], MANY: ["int4", "x"]}.get(flag.takes, ["4" if "level" in flag.names[0] else "int4"])
        words = [command, flag.names[-1].replace("-", "_").replace("__", "--", 1), *values]
        words += [] if "-m" in flag.names else ["-m", "M"]
        try:
            arguments, _ = told(words, OWN | {"--config"})
        except UsageError as error:
            assert error.what
            continue
        spelled = {word.replace("_", "-") for word in arguments if word.startswith("--")}
        known = OWN | {"--config", "--asymmetric", "--calibration-length", "--calibration-sequences", "--quality",
                       "--calibration-data", "--method", "--symmetric", "--head-bits", "--adapter"}  # fmt: skip
        assert spelled <= known, (flag.names, spelled - known)


def test_flags_of_one_command_have_different_names() -> None:
    for name, command in COMMANDS.items():
        names = [each for flag in command.flags for each in flag.names]
        assert len(names) == len(set(names)), name


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("--algorithm rtn", ["--quality fast", "--block-size 128", "--asymmetric"]),
        ("--algorithm gptq --max_samples 8", ["--quality best", "--calibration-sequences 8"]),
        ("--implementation awq", ["--prepare scale"]),
        ("--algorithm kquant", ["--method search"]),
        ("--algorithm hqq", ["--method hqq"]),
        ("--algorithm quarot", ["--prepare rotate"]),
        ("--precision int8", ["--precision int8"]),
        ("--precision uint4 --force", ["--precision int4", "--asymmetric", "--force"]),
    ],
)
def test_quantize_takes_olives_algorithms(line: str, arguments: list[str], decoder: Path) -> None:
    made = " ".join(read(f"quantize -m {decoder} -o OUT {line}"))
    assert made.startswith(f"optimize {decoder} ") and "-o OUT" in made
    for each in arguments:
        assert each in made


def test_capture_exports_for_the_target_that_olive_takes(decoder: Path) -> None:
    def made(line: str) -> str:
        return " ".join(read(f"capture-onnx-graph -m {decoder} -o OUT {line}"))

    assert "--precision fp32 --provider cpu" in made("--use_ort_genai")
    assert "--precision fp16 --provider cuda" in made("--use_model_builder")
    assert "--precision int4 --provider cpu" in made("--use_model_builder --precision int4")
    assert "--block-size 64" in made("--use_model_builder --precision int4 --int4_block_size 64")
    assert "--precision fp16 --provider cpu" in made("--torch_dtype float16 --target_opset 20")
    assert "fp32" in made("--exclude_embeds false --use_mobius_builder --precision fp32")
    with pytest.raises(UsageError, match="exclude_embeds"):
        made("--exclude_embeds true --use_model_builder")


def test_run_pass_runs_passes_of_olive_and_of_drupe(decoder: Path, graph: Path) -> None:
    def made(name: str, model: Path, **config: object) -> str:
        words = ["run-pass", "--pass-name", name, "--pass-config", json.dumps(config), "-m", str(model)]
        return " ".join(told(words, OWN - {"-m", "--model-name-or-path"})[0])

    assert "--method search --block-size 32" in made("OnnxKQuantQuantization", graph, bits=4)
    assert made("KQuant", decoder, bits=8).startswith(f"optimize {decoder} --precision int8")
    assert (
        made("quantize-weights", graph, bits=4) == f"run-pass quantize-weights {graph} -o run-pass-output --set bits=4"
    )
    data = {"name": "rows", "load_dataset_config": {"data_name": "o/n", "split": "train"}}
    assert '--train-on o/n@train --set finetune.method="lora"' in made("LoRA", decoder, train_data_config=data)
    with pytest.raises(UsageError, match="data to train on"):
        made("LoRA", decoder)


def drupe(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "drupe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_line_of_olive_makes_a_package_from_the_command_line(decoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = ["--model_name_or_path", decoder, f"--output_path={out}", "--algorithm", "rtn", "--precision", "int4"]
    done = drupe("quantize", *line, "--trust_remote_code", "--log_level", "1", "--no-verify")
    assert done.returncode == 0, done.stderr
    assert "note: --trust_remote_code: left out: no code of a checkpoint is ever run" in done.stderr
    assert "pass-finished: quantize-weights" in done.stderr and "--precision" not in done.stderr
    record = json.loads((out / "drupe.json").read_text())
    config = next(each["config"] for each in record["plan"]["passes"] if each["name"] == "quantize-weights")
    assert config["bits"] == 4 and config["method"] == "rtn"


def test_help_and_errors_of_commands_that_only_olive_has() -> None:
    shown = drupe("quantize", "--help")
    assert shown.returncode == 0 and "Usage: drupe" in shown.stdout
    assert re.search(r"note: --algorithm: changed: ", shown.stderr)
    refused = drupe("quantize", "-m", "M", "--algorithm", "lpbq")
    assert refused.returncode == 2 and "error: quantize" in refused.stderr and "static quantization" in refused.stderr
    assert drupe("finetune").returncode == 2


def test_a_value_that_is_missing_or_one_too_many_is_said_of_the_flag_as_it_is_typed() -> None:
    for typed, what in ((["--prec"], "--prec needs a value"), (["--use_model_b=1"], "--use_model_b takes no value")):
        with pytest.raises(UsageError, match=what):
            read_line("auto-opt", ["-m", "M", *typed], frozenset({"--precision"}))
