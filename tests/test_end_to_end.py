"""The main job: converting checkpoints to packages, compared with transformers and the genai builder."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from plain_decoders import decoder_feed
from tiny import VOCABULARY, make_checkpoint

import drupe
from drupe.api import DrupeError

PROMPT = "def parse("
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama-tied": ("llama", {"tie_word_embeddings": True, "head_dim": 32}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"tie_word_embeddings": True, "head_dim": 32}),
    "mistral": ("mistral", {"sliding_window": None, "tie_word_embeddings": False}),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: make_checkpoint(folder / name, kind, **more) for name, (kind, more) in ARCHITECTURES.items()}


def greedy_with_genai(package: Path, prompt: list[int], count: int) -> list[int]:
    """The greedy tokens of a plain onnxruntime-genai script."""
    import onnxruntime_genai as og

    model = og.Model(str(package))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(prompt) + count, do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(prompt)
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_tokens_equal_those_of_transformers(checkpoints: dict[str, Path], tmp_path: Path, name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    drupe.optimize(checkpoints[name], tmp_path / "out", precision="fp32")
    prompt = [3, 77, 130, 9, 9, 250, 41]
    model = AutoModelForCausalLM.from_pretrained(checkpoints[name], dtype=torch.float32)
    tokens = torch.tensor([prompt])
    expected = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=24, do_sample=False)
    assert greedy_with_genai(tmp_path / "out", prompt, 24) == expected[0].tolist()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_rounded_to_nearest_in_blocks_of_32_equal_those_of_the_genai_builder(
    checkpoints: dict[str, Path], tmp_path: Path, name: str
) -> None:
    drupe.optimize(
        checkpoints[name], tmp_path / "ours", quality="fast", symmetric=True, block_size=32, head_bits=4, verify=False
    )
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", checkpoints[name], "-o"]
    command += [tmp_path / "theirs", "-p", "int4", "-e", "cpu", "-c", tmp_path / "cache"]
    subprocess.run(command, check=True, capture_output=True)
    ours, theirs = (_packed(tmp_path / folder / "model.onnx") for folder in ("ours", "theirs"))
    assert ours and ours == theirs


PREPARED = {
    "rotate": {"rotate-weights"},
    "smooth": {"smooth-activations"},
    "scale": {"scale-channels"},
    "weigh": {"weigh-channels"},
    "rotate scale": {"rotate-weights", "scale-channels"},
}


@pytest.fixture(scope="module")
def unprepared(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> float:
    """The KL divergence of a package without prepared weights."""
    package = tmp_path_factory.mktemp("unprepared") / "out"
    drupe.optimize(checkpoints["qwen3"], package, bits_per_weight=BITS)
    return divergence(package, checkpoints["qwen3"])


BITS = 6.0
"""The budget of both. In so small a model the graph takes much of the default budget, and preparing adds nodes."""


def divergence(package: Path, source: Path) -> float:
    """KL(source || package) in nats a token, on drupe's own text."""
    return next(metric.value for metric in drupe.evaluate(package, source) if metric.name == "kl_divergence")


@pytest.mark.parametrize("prepare", PREPARED)
def test_prepared_weights_give_a_package_about_as_close_to_its_source(
    checkpoints: dict[str, Path], unprepared: float, tmp_path: Path, prepare: str
) -> None:
    calibration = {"calibration_sequences": 4, "calibration_length": 32} if prepare != "rotate" else {}
    drupe.optimize(checkpoints["qwen3"], tmp_path / "out", prepare=prepare.split(), bits_per_weight=BITS, **calibration)
    record = json.loads((tmp_path / "out" / "drupe.json").read_text())
    assert {step["name"] for step in record["passes"]} >= PREPARED[prepare]
    if "rotate" in prepare:  # rotation adds a matrix between the final norm and the head; all logits pass through it
        graph = ir.load(tmp_path / "out" / "model.onnx").graph
        (between,) = (node for node in graph if (node.name or "").endswith("/Weight") and node.op_type == "MatMulNBits")
        assert between.attributes["bits"].as_int() == 8
    # The weights are random, so no channel is larger than others: nothing can be gained, and little may be lost.
    assert 0 < divergence(tmp_path / "out", checkpoints["qwen3"]) < 1.25 * unprepared


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": "best"}, "channels = weighed"),
        ({"quality": "fast"}, "no effect with the method 'rtn'"),
        ({"method": "hqq"}, "no effect with the method 'hqq'"),
    ],
)
def test_weigh_is_refused_if_no_later_pass_uses_the_channel_weights(
    checkpoints: dict[str, Path], tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(DrupeError, match=message):
        # The missing text would fail a measurement, so the refusal comes before any measurement.
        text = {"calibration_data": tmp_path / "missing.txt"}
        drupe.optimize(checkpoints["qwen3"], tmp_path / "out", prepare="weigh", **text, **options)
    assert not (tmp_path / "out").exists()


def test_an_evaluation_text_that_is_too_short_is_refused_before_the_work(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("few words")
    for more in ([], ["--plan"]):
        command = [sys.executable, "-m", "drupe", "optimize", checkpoints["qwen3"], "-o", tmp_path / "out", *more]
        done = subprocess.run([*command, "--evaluation-data", words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "tokens, but" in done.stderr and "--evaluation-data" in done.stderr


@pytest.mark.parametrize("quality", ["balanced", "best"])
def test_the_plan_lists_the_passes_that_measure(checkpoints: dict[str, Path], quality: str) -> None:
    command = [
        sys.executable,
        "-m",
        "drupe",
        "optimize",
        checkpoints["qwen3"],
        "--quality",
        quality,
        "--plan",
        "--json",
    ]
    plan = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert plan["measures"] == (["measure-sensitivity", "quantize-gptq"] if quality == "best" else [])
    assert (plan["seconds"] is None) == bool(plan["measures"])


def test_a_package_compared_on_the_text_that_it_was_calibrated_with_says_so(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("def parse(text): return [go for go in text]\n" * 200)
    asked = ["--prepare", "weigh", "--calibration-data", words, "--calibration-sequences", "4"]
    asked += ["--calibration-length", "32", "--force"]
    command = [sys.executable, "-m", "drupe", "optimize", checkpoints["qwen3"], "-o", tmp_path / "out", *asked]
    said = [
        subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout
        for more in ([], ["--evaluation-data", words])
    ]
    assert ["the text that it was calibrated with" in each for each in said] == [False, True]


FEW = {"calibration_sequences": 4, "calibration_length": 32}


def test_the_record_says_what_weights_were_calibrated_with(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("def parse(text): return [go for go in text]\n" * 200)
    drupe.optimize(checkpoints["qwen3"], tmp_path / "out", quality="best", calibration_data=text, **FEW)
    record = json.loads((tmp_path / "out" / "drupe.json").read_text())
    settings = {step["name"]: step["config"] for step in record["passes"]}
    calibrated = settings["quantize-gptq"]
    assert {key: calibrated[key] for key in FEW} == FEW
    assert calibrated["calibration_fingerprint"] == hashlib.sha256(text.read_bytes()).hexdigest()
    assert settings["measure-sensitivity"]["calibration_data"] == str(text)


def test_max_kl_is_kept_and_a_larger_limit_gives_fewer_bytes(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    sizes = []
    for limit in (0.2, 0.02):
        outcome = drupe.optimize(checkpoints["qwen3"], tmp_path / f"{limit}", max_kl=limit)
        assert outcome.check.metrics["kl_divergence"] <= limit
        sizes.append(outcome.bytes)
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("options", [{}, {"quality": "best"}, {"prepare": ["scale"]}])
def test_the_plan_shows_the_scheme_and_the_bytes_of_each_matrix(
    checkpoints: dict[str, Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    """Also if a pass measures something first, because the bytes are known beforehand."""
    values = {name: given if isinstance(given, list) else [given] for name, given in options.items()}
    flags = [f"--{name}={value}" for name, given in values.items() for value in given]
    command = [sys.executable, "-m", "drupe", "optimize", checkpoints["qwen3"], "--plan", "--json", *flags]
    estimate = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["estimate"]
    assert {"embedding", "head", "mlp.down"} <= {row["role"] for row in estimate["weights"]}
    assert all("bits" in row["scheme"] for row in estimate["weights"] if row["role"] == "mlp.down")
    calibration = FEW if options else {}
    outcome = drupe.optimize(checkpoints["qwen3"], tmp_path / "out", verify=False, **options, **calibration)
    record = (tmp_path / "out" / "drupe.json").stat().st_size  # holds times, and is not estimated
    assert estimate["output_bytes"] == pytest.approx(outcome.bytes - record, rel=0.05)


def test_a_key_of_a_pass_has_the_same_effect_as_its_option(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Otherwise the pass that allocates bits would silently override the key."""
    settings = {"quantize-weights": {"block_size": 64}}
    by_key = drupe.optimize(checkpoints["qwen3"], tmp_path / "by key", settings=settings, verify=False)
    drupe.optimize(checkpoints["qwen3"], tmp_path / "by option", block_size=64, verify=False)
    assert by_key.steps
    written = [(tmp_path / name / "model.onnx.data").read_bytes() for name in ("by key", "by option")]
    assert written[0] == written[1]


def test_a_key_that_an_earlier_pass_overrides_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    plan = drupe.plan(checkpoints["qwen3"]).configured("quantize-weights", bits=2)
    with pytest.raises(DrupeError, match="bits = 2 has no effect: an earlier pass"):
        drupe.run(plan, tmp_path / "out")


def _packed(path: Path) -> Counter[tuple[str, str]]:
    """Digests of packed weights and scales of each product."""
    found: Counter[tuple[str, str]] = Counter()
    for node in ir.load(path).graph:
        if node.op_type == "MatMulNBits":
            weight, scales = (node.inputs[at].const_value.numpy() for at in (1, 2))
            digests = (hashlib.sha256(each.tobytes()).hexdigest() for each in (weight, scales))
            found[tuple(digests)] += 1  # type: ignore[index]
    return found


@pytest.mark.parametrize("precision", ["int4", "int8", "fp16", "bf16", "fp32"])
def test_packages_of_every_precision_of_the_cpu_run(
    checkpoints: dict[str, Path], tmp_path: Path, precision: str
) -> None:
    outcome = drupe.optimize(checkpoints["qwen2"], tmp_path / "out", precision=precision)
    assert outcome.check.not_run is None
    assert outcome.check.runtime == "onnxruntime-genai"


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "dml"])
@pytest.mark.parametrize("precision", ["int4", "int8", "fp16"])
def test_converting_for_a_gpu_needs_no_gpu(
    checkpoints: dict[str, Path], tmp_path: Path, provider: str, precision: str
) -> None:
    outcome = drupe.optimize(checkpoints["qwen3"], tmp_path / "out", provider=provider, precision=precision)
    config = json.loads((tmp_path / "out" / "genai_config.json").read_text())
    assert config["model"]["decoder"]["session_options"]["provider_options"] != []
    assert outcome.check.not_run is None or "is here" in outcome.check.not_run


def test_a_package_contains_the_expected_files_and_record(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (checkpoints["llama"] / "LICENSE").write_text("yours to use")
    drupe.optimize(checkpoints["llama"], tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names >= {
        "model.onnx", "model.onnx.data", "genai_config.json", "tokenizer.json", "tokenizer_config.json",
        "generation_config.json", "chat_template.jinja", "LICENSE", "drupe.json",
    }  # fmt: skip
    record = json.loads((tmp_path / "out" / "drupe.json").read_text())
    for name, entry in record["files"].items():
        content = (tmp_path / "out" / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert set(record["files"]) == names - {"drupe.json"}
    assert record["check"]["runtime_version"] and {"numba", "llvmlite"} <= record["libraries"].keys()
    assert [each["name"] for each in record["passes"]] == [
        "build-decoder", "repack-weights", "allocate-bits", "quantize-weights", "package-genai", "tune-session",
    ]  # fmt: skip


def test_last_token_graphs_and_all_logits_graphs_agree(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    import onnxruntime

    logits = []
    for name, everything in (("last", None), ("all", True)):
        drupe.optimize(checkpoints["qwen2"], tmp_path / name, all_logits=everything, verify=False)
        session = onnxruntime.InferenceSession(tmp_path / name / "model.onnx", providers=["CPUExecutionProvider"])
        logits.append(session.run(["logits"], decoder_feed(session, [5, 6, 7, 8]))[0])
    assert logits[0].shape == (1, 1, VOCABULARY) and logits[1].shape == (1, 4, VOCABULARY)
    assert np.abs(logits[0][:, 0] - logits[1][:, -1]).max() < 1e-4


def test_auto_opt_accepts_the_flags_of_olive(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from drupe_commands.program import main; main()", "auto-opt"]
    command += ["--model_name_or_path", checkpoints["llama"], "--output_path", tmp_path / "out", "--device", "cpu"]
    command += ["--provider", "CPUExecutionProvider", "--use_ort_genai", "--precision", "int4", "--log_level", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "smaller than its source" in done.stdout
    assert "pass-finished: quantize-weights" in done.stderr
    text = drupe.open(tmp_path / "out").generate(PROMPT)
    assert isinstance(text, str)
