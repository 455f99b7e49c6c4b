"""Scaling of channels: groups are found, a model's output stays as it is, and quantization loses less."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decoder_families
import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from drupe.api import Context, Model, ModelError, Target
from drupe_blockquant import Scheme
from drupe_equalize.activation_statistics import Statistics
from drupe_equalize.awq import _pieces, best_scales, candidates, output_errors
from drupe_equalize.groups import Rows, find_groups, scale_group
from drupe_equalize.scale_channels import ScaleChannels, ScaleChannelsConfig
from drupe_equalize.smooth_activations import SmoothActivations, SmoothActivationsConfig, smooth_scales
from drupe_nbits import assign, find_experts, find_sites
from drupe_onnx import Array, ir

RNG = np.random.default_rng(2)
SCHEME = Scheme(4, 32, False, "search")
LITTLE = {"calibration_sequences": 4, "calibration_length": 64}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama-all-heads-biases": (
        "llama",
        {"tie_word_embeddings": False, "num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
    ),
    "qwen2-tied-biases": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3-split": ("qwen3", {"tie_word_embeddings": True, "head_dim": 32}),
}


@pytest.mark.parametrize("all_logits", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_any_scales_leave_the_output_of_the_model_as_it_is(
    name: str, all_logits: bool, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    kind, settings = MODELS[name]
    folder = kit.checkpoint(kind, **settings)
    before = kit.logits(kit.build(folder, cpu, all_logits=all_logits), cpu, tmp_path / "before")
    model = kit.build(folder, cpu, all_logits=all_logits)
    graph = model.payload.component.graph
    groups = find_groups(graph, [node for node in graph if "drupe.block" in node.metadata_props])
    kinds = [[type(each.giver).__name__ for each in groups[block * 4 : block * 4 + 4]] for block in range(2)]
    assert kinds == 2 * [["Norm", "Rows", "Norm", "Rows"]]
    for group in groups:
        scale_group(graph, group, RNG.uniform(0.2, 5, int(group.channels.max()) + 1).astype(np.float32))
    assert not [site for site in find_sites(graph) if site.role.startswith(("attention", "mlp")) and is_old(site.rows)]
    after = kit.logits(model, cpu, tmp_path / "after")
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max(), rtol=0)


@pytest.mark.parametrize("name", ["dbrx", "gpt2", "gpt_neox", "mpt", "phi"])
def test_layer_norms_take_scales_with_their_biases(
    name: str, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    """DBRX and MPT limit their values, so nothing but norms could take scales."""
    checkpoint, _ = decoder_families.make(name, tmp_path)
    before = kit.logits(kit.build(checkpoint, cpu), cpu, tmp_path / "before")
    model = kit.build(checkpoint, cpu)
    graph = model.payload.component.graph
    groups = [group for group in find_groups(graph, list(graph)) if type(group.giver).__name__ == "Norm"]
    assert len(groups) >= 5  # of four layers and more, and that of the head
    for group in groups:
        scale_group(graph, group, RNG.uniform(0.2, 5, int(group.channels.max()) + 1).astype(np.float32))
    after = kit.logits(model, cpu, tmp_path / "after")
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max(), rtol=0)


def is_old(rows: Any) -> bool:
    """Whether a matrix is unchanged from the checkpoint."""
    return type(rows).__name__ in ("SafetensorsTensor", "Concat")


def test_query_heads_that_share_values_share_scales(kit: SimpleNamespace, cpu: Target) -> None:
    graph = kit.build(kit.checkpoint("qwen2", tie_word_embeddings=True), cpu).payload.component.graph
    group = next(each for each in find_groups(graph, list(graph)) if "o_proj" in each.name)
    assert isinstance(group.giver, Rows)
    assert (group.giver.first, group.giver.count) == (
        64 + 32,
        32,
    )  # after the rows of 4 query heads and 2 key heads of size 16
    assert group.channels.tolist() == [*range(16), *range(16), *range(16, 32), *range(16, 32)]
    values = np.arange(64, dtype=np.float32)
    np.testing.assert_array_equal(group.most(values)[:16], values[16:32])
    np.testing.assert_array_equal(group.mean(values)[:16], values[8:24])


def test_a_value_with_another_reader_makes_no_group(kit: SimpleNamespace, cpu: Target) -> None:
    graph = kit.build(kit.checkpoint("llama", tie_word_embeddings=False), cpu).payload.component.graph
    count = len(find_groups(graph, list(graph)))
    down = next(site for site in find_sites(graph) if site.role == "mlp.down")
    graph.outputs.append(down.activations)
    assert len(find_groups(graph, list(graph))) == count - 1


def test_matrices_that_several_products_share_stay_shared(cpu: Target, kit: SimpleNamespace, tmp_path: Path) -> None:
    checkpoint, _ = decoder_families.make("zamba2, one block", tmp_path)
    graph = kit.build(checkpoint, cpu).payload.component.graph
    groups = find_groups(graph, list(graph))
    users = Counter(site.weight for site in find_sites(graph) if not site.is_look_up)
    assert set(users.values()) == {1, 3}
    assert groups and all(users[site.weight] == 1 for group in groups for site in group.sites(graph))
    shared = {site.node for site in find_sites(graph) if users[site.weight] > 1}
    assert not [group for group in groups if isinstance(group.giver, Rows) and group.giver.node in shared]


@pytest.mark.parametrize(
    ("name", "beside"),
    [("mixtral", 1), ("qwen2_moe", 4), ("gpt_oss", 1), ("granitemoeshared", 3), ("deepseek_v3", 3)],
)
def test_experts_are_scaled_with_all_that_reads_their_norm(
    name: str, beside: int, kit: SimpleNamespace, cpu: Target, tmp_path: Path
) -> None:
    """Beside them: the router, and what a shared MLP has before its activation."""
    checkpoint, _ = decoder_families.make(name, tmp_path)
    before = kit.logits(kit.build(checkpoint, cpu), cpu, tmp_path / "before")
    model = kit.build(checkpoint, cpu)
    graph = model.payload.component.graph
    experts = find_experts(graph)
    groups = [group for group in find_groups(graph, list(graph)) if group.experts]
    assert [group.experts[0] for group in groups] == [site.node for site in experts]
    assert {len(group.products) for group in groups} == {beside}
    for group in groups:
        scale_group(graph, group, RNG.uniform(0.2, 5, int(group.channels.max()) + 1).astype(np.float32))
    assert all(type(site.up.rows).__name__ == "Affine" for site in find_experts(graph))
    after = kit.logits(model, cpu, tmp_path / "after")
    np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max(), rtol=0)


@pytest.mark.parametrize("scaling", [ScaleChannels(), SmoothActivations()], ids=lambda each: each.name)
def test_what_is_not_scaled_of_experts_is_said(
    scaling: Any, kit: SimpleNamespace, cpu: Target, context: Context, tmp_path: Path
) -> None:
    """What MiniMax's experts read is the residual as well."""
    mixtral, minimax = (decoder_families.make(name, tmp_path / name)[0] for name in ("mixtral", "minimax"))
    cases = [(mixtral, ["of experts, only"]), (minimax, ["experts are not scaled"]), (kit.checkpoint("llama"), [])]
    for folder, told in cases:
        found = scaling.run(kit.build(folder, cpu), scaling.Config(**LITTLE), context)
        said = [each.what for each in found.notices if each.about == "weights"]
        assert len(said) == len(told)
        assert all(each.startswith(words) for each, words in zip(said, told, strict=True))


def with_outliers(channels: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A matrix [48, K], and values [300, K] in which some channels are many times as large as others."""
    values = RNG.normal(0, 1, (300, channels)).astype(np.float32)
    values[:, ::29] *= 40
    return RNG.normal(0, 1, (48, channels)).astype(np.float32), values


def test_the_search_finds_scales_that_lower_the_error_if_some_channels_are_large() -> None:
    matrix, values = with_outliers()
    mean = np.abs(values).mean(0)
    scales = best_scales([(Array(matrix), SCHEME)], values[:200], mean, np.arange(128))
    unscaled, scaled = output_errors(Array(matrix), SCHEME, values[200:], np.stack([np.ones(128, np.float32), scales]))
    assert scaled < 0.5 * unscaled


def test_the_search_never_takes_scales_that_are_worse_than_no_scaling() -> None:
    for seed in range(3):
        random = np.random.default_rng(seed)
        matrix = random.standard_t(2, (16, 64)).astype(np.float32)
        values = random.standard_t(2, (100, 64)).astype(np.float32)
        scales = best_scales([(Array(matrix), SCHEME)], values, np.abs(values).mean(0), np.arange(64))
        none, found = output_errors(Array(matrix), SCHEME, values, np.stack([np.ones(64, np.float32), scales]))
        assert found <= none


def test_the_first_candidate_is_no_scaling_and_all_scales_are_finite() -> None:
    found = candidates(np.array([0, 1e-30, 1, 100], np.float32))
    assert found.shape == (20, 4)
    assert (found[0] == 1).all()
    assert np.isfinite(found).all() and (found > 0).all()


def test_output_errors_are_the_same_for_any_number_of_threads() -> None:
    matrix, values = with_outliers()
    scales = candidates(np.abs(values).mean(0))[:3]
    alone, together = (output_errors(Array(matrix), SCHEME, values, scales, threads) for threads in (1, 3))
    np.testing.assert_array_equal(alone, together)


def test_statistics_of_batches_equal_those_of_all_tokens() -> None:
    values = RNG.normal(0, 1, (100, 8)).astype(np.float32)
    measured = Statistics("x", 100, 10)
    for start, stop in ((0, 3), (3, 60), (60, 100)):
        measured.add(values[start:stop])
    np.testing.assert_allclose(measured.mean, np.abs(values).mean(0), rtol=1e-6)
    np.testing.assert_array_equal(measured.largest, np.abs(values).max(0))
    whole = Statistics("x", 100, 10)
    whole.add(values)
    assert measured.sample.shape == (10, 8)
    np.testing.assert_array_equal(measured.sample, whole.sample)
    assert all((values == row).all(1).any() for row in measured.sample)


def test_the_error_for_nan_in_activations_names_the_product() -> None:
    with pytest.raises(ModelError, match=r"layers\.3\.up"):
        Statistics("layers.3.up", 4, 4).add(np.array([[1, np.nan]], np.float32))


@pytest.fixture(scope="module")
def demo(kit: SimpleNamespace, cpu: Target) -> Any:
    from drupe_demo import MODEL

    return lambda: kit.build(MODEL, cpu)


def errors_in_use(model: Model, sequences: list[list[int]], context: Context) -> np.ndarray:
    """The output error of each group of a model's blocks, quantized, on `sequences`."""
    from drupe_layerwise import LayerByLayer

    component, found = model.payload.component, []
    with LayerByLayer(component, sequences, context) as layers:
        for segment in layers.segments[1:-1]:
            groups = find_groups(segment.graph, segment.nodes)
            measured = {group.value.name: Statistics(group.name, sum(map(len, sequences)), 256) for group in groups}
            layers.collect(segment, measured, lambda name, rows, into=measured: into[name].add(rows))
            for group in groups:
                sample = measured[group.value.name].sample
                ones = np.ones((1, sample.shape[1]), np.float32)
                sites = group.sites(segment.graph)
                found.append(sum(output_errors(site.rows, SCHEME, sample, ones)[0] for site in sites))
    return np.array(found)


@pytest.fixture(scope="module")
def heldout() -> list[list[int]]:
    """Sequences that the scales were not searched with."""
    from drupe_demo import HELDOUT, MODEL
    from drupe_text import Text, TextTokenizer

    return TextTokenizer(MODEL).sequences(Text(str(HELDOUT)), 4, 64)


@pytest.mark.slow
def test_scaling_lowers_the_output_error_of_the_demo_model(
    demo: Any, heldout: list[list[int]], context: Context
) -> None:
    """It lowers it a little, and more if the channels are made uneven first."""
    scaled, uneven, mended = demo(), demo(), demo()
    for model in (uneven, mended):
        random, graph = np.random.default_rng(5), model.payload.component.graph
        for group in find_groups(graph, [node for node in graph if "drupe.block" in node.metadata_props]):
            scale_group(graph, group, random.lognormal(0, 1, int(group.channels.max()) + 1).astype(np.float32))
    config = ScaleChannelsConfig(block_size=32, calibration_sequences=8, calibration_length=128)
    for model in (scaled, mended):
        ScaleChannels().run(model, config, context)
    errors = [errors_in_use(model, heldout, context) for model in (demo(), scaled, uneven, mended)]
    assert np.log(errors[1] / errors[0]).mean() < -0.01
    assert (errors[1] / errors[0]).max() < 1.1
    assert np.log(errors[3] / errors[2]).mean() < np.log(0.7)


def test_errors_of_large_matrices_are_estimated_from_some_rows() -> None:
    matrix, values = RNG.normal(0, 1, (5000, 32)).astype(np.float32), RNG.normal(0, 1, (20, 32)).astype(np.float32)
    ones = np.ones((1, 32), np.float32)
    whole = sum(
        output_errors(Array(matrix[start : start + 1000]), SCHEME, values, ones) for start in range(0, 5000, 1000)
    )
    np.testing.assert_allclose(output_errors(Array(matrix), SCHEME, values, ones), whole, rtol=0.1)


def test_the_rows_for_the_estimate_come_from_queries_keys_and_values_in_proportion() -> None:
    for queries, keys in ((2048, 512), (4096, 1024)):  # llama-3.2-1b, qwen3-8b
        seen = [row for start, stop in _pieces(queries + 2 * keys) for row in range(start, stop)]
        shares = np.histogram(seen, [0, queries, queries + keys, queries + 2 * keys])[0] / len(seen)
        np.testing.assert_allclose(shares, np.array([queries, keys, keys]) / (queries + 2 * keys), atol=0.04)


def test_a_bias_after_a_split_is_scaled_with_its_part() -> None:
    weights = {"w": RNG.normal(0, 1, (16, 16)), "bias": RNG.normal(0, 1, 8), "down": RNG.normal(0, 1, (8, 16))}
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]> g (float[1, T, 16] x) => (float[1, T, 16] y)
        {
            both = MatMul (x, w)
            gate, plain = Split <axis = -1, num_outputs = 2> (both)
            up = Add (plain, bias)
            open = Sigmoid (gate)
            product = Mul (open, up)
            y = MatMul (product, down)
        }"""
    )
    for name, held in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(held.astype(np.float32), name))
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    (group,) = find_groups(graph.graph, list(graph.graph))
    scale_group(graph.graph, group, RNG.uniform(0.2, 5, 8).astype(np.float32))
    x = RNG.normal(0, 1, (1, 3, 16)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
        for each in (model, ir.to_proto(graph))
    )
    np.testing.assert_allclose(after[0], before[0], atol=1e-5)


@pytest.mark.parametrize("name", ["scale", "smooth"])
def test_a_scaled_model_has_the_same_output(
    name: str, kit: SimpleNamespace, cpu: Target, context: Context, tmp_path: Path
) -> None:
    folder = kit.checkpoint("qwen2", tie_word_embeddings=True)
    before = kit.logits(kit.build(folder, cpu), cpu, tmp_path / "before")
    model = kit.build(folder, cpu)
    if name == "scale":
        ScaleChannels().run(model, ScaleChannelsConfig(**LITTLE), context)
    else:
        SmoothActivations().run(model, SmoothActivationsConfig(**LITTLE), context)
    np.testing.assert_allclose(kit.logits(model, cpu, tmp_path / "after"), before, atol=1e-4 * np.abs(before).max())


def test_the_search_uses_the_assigned_scheme(kit: SimpleNamespace, cpu: Target) -> None:
    graph = kit.build(kit.checkpoint("llama", tie_word_embeddings=False), cpu).payload.component.graph
    node = find_sites(graph)[1].node
    config = ScaleChannelsConfig(bits=4, block_size=64)
    assert config.scheme_for(find_sites(graph)[1], cpu.capabilities) == Scheme(4, 64, False, "search")
    assign(node, Scheme(8, 32, True))
    found = config.scheme_for(find_sites(graph)[1], cpu.capabilities)
    assert found == Scheme(8, 32, True, "rtn")


@pytest.mark.parametrize(
    ("settings", "method"),
    [({}, "search"), ({"method": "rtn"}, "rtn"), ({"method": "hqq"}, "hqq")],
)
def test_the_search_uses_the_method_that_will_quantize(
    settings: dict[str, Any], method: str, kit: SimpleNamespace, cpu: Target
) -> None:
    site = find_sites(kit.build(kit.checkpoint("llama"), cpu).payload.component.graph)[1]
    for assigned in (False, True):
        if assigned:
            assign(site.node, Scheme(4, 32, False))
        found = ScaleChannelsConfig(**settings).scheme_for(site, cpu.capabilities)
        assert found is not None and found.method == method


def test_smoothing_gives_activations_and_weights_equal_maxima() -> None:
    activations, weights = np.array([0.1, 2, 50, 0, 1], np.float32), np.array([1, 3, 0.2, 1, 0], np.float32)
    scales = smooth_scales(activations, weights, 0.5)
    np.testing.assert_allclose((activations / scales)[:3], (weights * scales)[:3], rtol=1e-6)
    assert scales[3:].tolist() == [1, 1]
    np.testing.assert_allclose(activations[:3] / smooth_scales(activations, weights, 1.0)[:3], 1, rtol=1e-6)


def test_smoothing_lowers_the_error_of_eight_bit_activations_if_some_channels_are_large() -> None:
    matrix, values = with_outliers()
    scales = smooth_scales(np.abs(values).max(0), np.abs(matrix).max(0), 0.5)

    def error(matrix: np.ndarray, values: np.ndarray) -> float:
        step = np.abs(values).max(1, keepdims=True) / 127
        rounded = np.round(values / step) * step
        return float(np.square((rounded - values) @ matrix.T).sum())

    assert error(matrix * scales, values / scales) < 0.7 * error(matrix, values)


@pytest.mark.parametrize("kind", [ScaleChannels, SmoothActivations])
def test_a_model_without_a_tokenizer_is_refused(kind: Any, kit: SimpleNamespace, cpu: Target, context: Context) -> None:
    model = kit.build(kit.checkpoint("llama", tie_word_embeddings=False), cpu)
    del model.payload.files["tokenizer.json"]
    with pytest.raises(ModelError, match="tokenizer"):
        kind().run(model, kind.Config(**LITTLE), context)
