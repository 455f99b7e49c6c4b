"""Rounding by gradient, with and without the library auto-round."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from drupe.api import (
    Context,
    Model,
    ModelError,
    Plan,
    Request,
    RuntimeMissing,
    Stage,
    Target,
    UsageError,
    registry,
    resolve,
)
from drupe_checkpoints import open_checkpoint
from drupe_onnx import Files
from drupe_quant_autoround import round_by_gradient
from drupe_quant_autoround.claims import claim
from drupe_quant_autoround.configuration import RoundByGradientConfig
from drupe_quant_autoround.round_by_gradient import RoundByGradient, not_kept
from drupe_quant_autoround.tuning import Levels, levels_of
from drupe_quant_autoround.writing import split_stored, write_checkpoint
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
def test_the_written_checkpoint_holds_the_levels_and_otherwise_equals_its_source(
    checkpoint: Path, tmp_path: Path, symmetric: bool
) -> None:
    module = "model.layers.1.mlp.down_proj"
    layer = random_levels(64, 96, symmetric)
    config = RoundByGradientConfig(**SMALL, symmetric=symmetric)
    source = open_checkpoint(checkpoint)
    write_checkpoint(tmp_path / "made", source, {module: layer}, config, context(tmp_path))
    before, after = source.tensors(), open_checkpoint(tmp_path / "made").tensors()
    assert before.keys() == after.keys()
    with Files() as files:
        for name, tensor in after.items():
            rows = tensor.rows(0, tensor.shape[0], files)
            expected = before[name].rows(0, tensor.shape[0], files)
            np.testing.assert_array_equal(rows, values(layer) if name == f"{module}.weight" else expected, name)


def test_matrices_that_the_checkpoint_holds_in_another_form_are_left_to_the_search_and_named(checkpoint: Path) -> None:
    """auto-round takes merged experts apart, and gives them names of its own."""
    own, other = "model.layers.1.mlp.down_proj", "model.layers.1.mlp.experts.3.down_proj"
    layer = random_levels(64, 96, symmetric=False)
    stored, others = split_stored({own: layer, other: layer}, checkpoint)
    assert (list(stored), others) == ([own], [other])
    notice = not_kept(others)
    assert other in notice.what
    with pytest.raises(ModelError, match="no matrix that the checkpoint holds"):
        split_stored({other: layer}, checkpoint)


@pytest.mark.parametrize("symmetric", [True, False])
def test_levels_are_recovered_from_bfloat16_values(symmetric: bool) -> None:
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
    with pytest.raises(ModelError, match="not multiples of their scales"):
        levels_of(left, BITS)


def test_the_error_for_the_missing_library_says_how_to_install_it(
    checkpoint: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(round_by_gradient, "LIBRARIES", ("numpy", "no-such-library"))
    with pytest.raises(RuntimeMissing, match="needs no-such-library") as caught:
        RoundByGradient().run(Model("hf", checkpoint), RoundByGradientConfig(**SMALL), context(tmp_path))
    assert caught.value.cure == "pip install 'drupe[autoround]'"


def test_a_packed_checkpoint_is_refused(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(round_by_gradient, "LIBRARIES", ())
    config = RoundByGradientConfig(**SMALL)
    made = tmp_path / "made"
    layers = {"model.layers.1.mlp.down_proj": random_levels(64, 96, symmetric=True)}
    write_checkpoint(made, open_checkpoint(checkpoint), layers, config, context(tmp_path))
    with pytest.raises(ModelError, match="already quantized"):
        RoundByGradient().run(Model("hf", made), config, context(tmp_path))


ASKED = Request("model", options={"quality": "autoround"})
FOUR = {"bits": 4, "symmetric": True}


def graph(**facts: str) -> Model:
    return Model.single("onnx", Path("model"), {"weights": "float", **facts})


def test_the_checkpoint_stage_is_claimed_with_the_numerics_of_the_recipe(checkpoint: Path) -> None:
    claimed = claim(Stage("checkpoint", FOUR), Model("hf", checkpoint), ASKED)
    assert claimed is not None
    (rounding,) = claimed.steps
    assert (rounding.name, rounding.config) == ("round-by-gradient", {"symmetric": True})
    assert {"block_size", "symmetric", "calibration_data", "calibration_sequences"} <= {*rounding.options.values()}
    assert claimed.reads == ("quality",)


def test_the_quantize_stage_is_claimed_by_repacking_the_rounded_levels() -> None:
    claimed = claim(Stage("quantize", FOUR), graph(rounded="by gradient"), ASKED)
    assert claimed is not None
    assert [step.name for step in claimed.steps] == ["repack-weights", "quantize-weights"]
    assert claimed.steps[1].config == FOUR


@pytest.mark.parametrize("stage", ["checkpoint", "import", "fuse", "prepare", "package"])
def test_other_stages_and_other_qualities_are_not_claimed(stage: str, checkpoint: Path) -> None:
    model = graph() if stage == "checkpoint" else Model("hf", checkpoint)
    assert claim(Stage(stage, FOUR), model, ASKED) is None
    for name in ("checkpoint", "quantize"):
        assert claim(Stage(name, FOUR), Model("hf", checkpoint), Request("model", options={"quality": "best"})) is None
        assert claim(Stage(name, FOUR), Model("hf", checkpoint), Request("model")) is None


def test_a_float_recipe_is_not_claimed(checkpoint: Path) -> None:
    assert claim(Stage("checkpoint"), Model("hf", checkpoint), ASKED) is None


def test_weights_of_other_bits_are_refused(checkpoint: Path) -> None:
    assert claim(Stage("checkpoint", {"bits": 8}), Model("hf", checkpoint), ASKED) is None
    with pytest.raises(UsageError, match="works only with 4 bits") as caught:
        claim(Stage("quantize", {"bits": 8}), graph(), ASKED)
    assert "--precision int4" in (caught.value.cure or "")


def test_a_graph_without_rounded_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="weights were not rounded"):
        claim(Stage("quantize", FOUR), graph(), ASKED)


def plan_for(checkpoint: Path, provider: str = "cpu", **options: object) -> Plan:
    found = registry()
    one = found.provider(provider)
    request = Request(str(checkpoint), provider=provider, options=options)
    return found.planner().compose(request, resolve(str(checkpoint), {}, found), one, one.target())


def test_the_quality_autoround_plans_rounding_and_repacking(checkpoint: Path) -> None:
    plan = plan_for(checkpoint, quality="autoround", block_size=64, calibration_sequences=3)
    names = [each.name for each in plan.passes]
    assert names == [
        "round-by-gradient",
        "build-decoder",
        "repack-weights",
        "quantize-weights",
        "package-genai",
        "tune-session",
    ]
    assert plan.passes[0].config == {"block_size": 64, "calibration_sequences": 3}
    assert plan.passes[3].config == {"bits": 4, "block_size": 64}
    assert plan_for(checkpoint, "dml", quality="autoround").passes[0].config == {"symmetric": True}


def test_the_error_for_a_misspelt_quality_suggests_autoround(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="did you mean autoround"):
        plan_for(checkpoint, quality="auto-round")


@pytest.mark.parametrize("options", [{"prepare": ["rotate"]}, {"target_size": "3MB"}])
def test_options_without_effect_on_it_are_refused(checkpoint: Path, options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="has no effect without"):
        plan_for(checkpoint, quality="autoround", **options)


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
    quantized = {"block_size": BLOCK, "symmetric": symmetric, "method": "rtn"}
    exact = logits(checkpoint, tmp_path / "exact", cpu, None)
    nearest = logits(checkpoint, tmp_path / "nearest", cpu, quantized)
    gradient = logits(rounded.location, tmp_path / "gradient", cpu, quantized)
    assert divergence(exact, gradient) < 0.8 * divergence(exact, nearest)


def logits(folder: Path, out: Path, target: Target, quantized: dict | None) -> np.ndarray:
    """Logits [tokens, vocabulary] from onnxruntime, of a text that was not used for calibration."""
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
