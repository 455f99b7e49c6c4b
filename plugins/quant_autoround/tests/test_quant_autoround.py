"""Rounding by gradient: what needs the library auto-round, and what does not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from drupe.api import Context, Model, ModelError, Recipe, RuntimeMissing, Step, Target, UsageError
from drupe_huggingface import Checkpoint
from drupe_onnx import Files
from drupe_quant_autoround import round_by_gradient
from drupe_quant_autoround.recipe import with_autoround
from drupe_quant_autoround.round_by_gradient import RoundByGradient, RoundByGradientConfig
from drupe_quant_autoround.tuning import Levels, levels_of
from drupe_quant_autoround.writing import write_checkpoint
from drupe_text import Text, TextTokenizer

needs_the_library = pytest.mark.skipif(
    importlib.util.find_spec("auto_round") is None,
    reason="the library auto-round is not installed: pip install 'drupe[autoround]'",
)
BLOCK = 32
SMALL = {"block_size": BLOCK, "calibration_sequences": 8, "calibration_length": 64, "device": "cpu"}
BITS = 4


@pytest.fixture(scope="session")
def cpu() -> Target:
    from drupe_ep_cpu.provider import Cpu

    return Cpu().target()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_checkpoint(tmp_path_factory.mktemp("llama") / "source", tie_word_embeddings=False)


def context(folder: Path, target: Target | None = None) -> Context:
    return Context(target, folder, threads=2)  # type: ignore[arg-type]


def random_levels(n: int, k: int, symmetric: bool) -> Levels:
    draw = np.random.default_rng(n + k)
    groups = -(-k // BLOCK)
    zero_points = np.full((n, groups), 8) if symmetric else draw.integers(0, 16, (n, groups))
    scales = draw.uniform(0.001, 0.1, (n, groups)).astype(np.float16)
    return Levels(draw.integers(0, 16, (n, k)).astype(np.uint8), scales, zero_points.astype(np.uint8))


def values(layer: Levels) -> np.ndarray:
    columns = np.arange(layer.levels.shape[1]) // BLOCK
    centred = layer.levels.astype(np.float32) - layer.zero_points[:, columns]
    return centred * layer.scales.astype(np.float32)[:, columns]


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_checkpoint_that_is_written_reads_as_the_levels_and_else_as_its_source(
    checkpoint: Path, tmp_path: Path, symmetric: bool
) -> None:
    module = "model.layers.1.mlp.down_proj"
    layer = random_levels(64, 96, symmetric)
    config = RoundByGradientConfig(**SMALL, symmetric=symmetric)
    source = Checkpoint.open(checkpoint)
    write_checkpoint(tmp_path / "made", source, {module: layer}, config, context(tmp_path))
    before, after = source.tensors(), Checkpoint.open(tmp_path / "made").tensors()
    assert before.keys() == after.keys()
    with Files() as files:
        for name, tensor in after.items():
            rows = tensor.rows(0, tensor.shape[0], files)
            expected = before[name].rows(0, tensor.shape[0], files)
            np.testing.assert_array_equal(rows, values(layer) if name == f"{module}.weight" else expected, name)


@pytest.mark.parametrize("symmetric", [True, False])
def test_levels_are_found_in_values_that_bfloat16_holds(symmetric: bool) -> None:
    torch = pytest.importorskip("torch")
    layer = random_levels(16, 96, symmetric)
    left = SimpleNamespace(
        weight=torch.tensor(values(layer)).bfloat16(),
        scale=torch.tensor(layer.scales),
        zp=8 if symmetric else torch.tensor(layer.zero_points).float(),
        group_size=BLOCK,
    )
    found = levels_of(left, BITS)
    np.testing.assert_array_equal(found.levels, layer.levels)
    np.testing.assert_array_equal(found.zero_points, layer.zero_points)
    left.weight[3, 5] = float("nan")
    with pytest.raises(ModelError, match="no levels"):
        levels_of(left, BITS)


def test_a_missing_library_is_named_with_what_installs_it(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(round_by_gradient, "LIBRARIES", ("numpy", "no-such-library"))
    with pytest.raises(RuntimeMissing, match="needs no-such-library") as caught:
        RoundByGradient().run(Model("hf", checkpoint), RoundByGradientConfig(**SMALL), context(tmp_path))
    assert caught.value.cure == "pip install 'drupe[autoround]'"


def test_a_packed_checkpoint_is_refused(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(round_by_gradient, "LIBRARIES", ())
    config = RoundByGradientConfig(**SMALL)
    made = tmp_path / "made"
    write_checkpoint(made, Checkpoint.open(checkpoint), {}, config, context(tmp_path))
    with pytest.raises(ModelError, match="quantized already"):
        RoundByGradient().run(Model("hf", made), config, context(tmp_path))


def test_only_a_recipe_that_quantizes_to_four_bits_is_amended() -> None:
    quantize = Step("quantize-weights", {"bits": 4, "symmetric": True}, {"quality": "quality"}, {"quality": ("fast",)})
    amended = with_autoround(Recipe("x", "int4", (Step("build-decoder"), quantize, Step("package-genai"))))
    assert amended is not None
    taken = [step for step in amended.steps if step.applies({"quality": "autoround"})]
    assert [step.name for step in taken] == ["round-by-gradient", "build-decoder", "quantize-weights", "package-genai"]
    assert taken[0].config == {"symmetric": True} and "quality" not in taken[2].options
    assert [step for step in amended.steps if step.applies({"quality": "fast"})] == [Step("build-decoder"), quantize,
                                                                                     Step("package-genai")]  # fmt: skip
    eight = Step("quantize-weights", {"bits": 8}, {"quality": "quality"})
    assert with_autoround(Recipe("x", "int8", (eight,))) is None
    assert with_autoround(Recipe("x", "fp16", (Step("build-decoder"),))) is None


def test_the_plan_takes_it_for_its_quality(checkpoint: Path, tmp_path: Path) -> None:
    from drupe.api import Request, preview

    asked = {"quality": "autoround", "block_size": 64, "calibration_sequences": 3}
    plan = preview(Request(str(checkpoint), tmp_path / "out", options=asked))
    names = [step.runner.name for step, _ in plan.steps]
    assert names == ["round-by-gradient", "build-decoder", "repack-weights", "quantize-weights", "package-genai"]
    assert (plan.steps[0][0].config.block_size, plan.steps[0][0].config.calibration_sequences) == (64, 3)
    with pytest.raises(UsageError, match="did you mean autoround"):
        preview(Request(str(checkpoint), tmp_path / "out", options={"quality": "auto-round"}))


@needs_the_library
@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [False, True])
def test_rounding_by_gradient_is_closer_to_the_source_than_rounding_to_nearest(
    checkpoint: Path, tmp_path: Path, cpu: Target, symmetric: bool
) -> None:
    settings = {**SMALL, "symmetric": symmetric, "calibration_sequences": 32}
    config = RoundByGradientConfig(**settings, iterations=60)
    rounded = RoundByGradient().run(Model("hf", checkpoint), config, context(tmp_path, cpu))
    assert json.loads((rounded.location / "config.json").read_text())["quantization_config"]["bits"] == BITS
    quantized = {"block_size": BLOCK, "symmetric": symmetric, "quality": "fast"}
    exact = logits(checkpoint, tmp_path / "exact", cpu, None)
    nearest = logits(checkpoint, tmp_path / "nearest", cpu, quantized)
    gradient = logits(rounded.location, tmp_path / "gradient", cpu, quantized)
    assert divergence(exact, gradient) < 0.8 * divergence(exact, nearest)


def logits(folder: Path, out: Path, target: Target, quantized: dict | None) -> np.ndarray:
    """Logits [tokens, vocabulary] of a text that nothing is calibrated with, by onnxruntime."""
    import onnxruntime

    from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
    from drupe_onnx import write_package
    from drupe_quant_rtn.configuration import QuantizeWeightsConfig
    from drupe_quant_rtn.quantize_weights import QuantizeWeights

    here = context(out, target)
    out.mkdir()
    built = BuildDecoderConfig(weights="float32", activations="float32", all_logits=True)
    model = BuildDecoder().run(Model("hf", folder), built, here)
    if quantized is not None:
        model = QuantizeWeights().run(model, QuantizeWeightsConfig(**quantized), here)
    write_package(model.payload, out, here)
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    tokens = np.array(TextTokenizer(folder).sequences(Text(None, "evaluation"), 1, 128))
    feed: dict[str, np.ndarray] = {}
    for each in session.get_inputs():
        if each.name.startswith("past"):
            feed[each.name] = np.zeros((1, each.shape[1], 0, each.shape[3]), np.float32)
        else:
            ones = np.ones_like(tokens)
            feed[each.name] = {"input_ids": tokens, "position_ids": np.arange(128)[None]}.get(each.name, ones)
    return session.run(["logits"], feed)[0][0]


def divergence(exact: np.ndarray, other: np.ndarray) -> float:
    """Mean KL divergence in nats."""

    def log_softmax(rows: np.ndarray) -> np.ndarray:
        rows = rows - rows.max(-1, keepdims=True)
        return rows - np.log(np.exp(rows).sum(-1, keepdims=True))

    p, q = log_softmax(exact.astype(np.float64)), log_softmax(other.astype(np.float64))
    return float((np.exp(p) * (p - q)).sum(-1).mean())
