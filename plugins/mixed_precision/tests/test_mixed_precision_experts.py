"""Experts get 4 bits, and 8 where a budget has room for them, those first whose rounding costs most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import make_checkpoint

from drupe.api import Context, Model, replace
from drupe_checkpoints import open_checkpoint
from drupe_ep_cpu.provider import Cpu
from drupe_layerwise import LayerByLayer, RecordedLogits
from drupe_mixed_precision.allocate_bits import AllocateBits
from drupe_mixed_precision.budgets import parse_size
from drupe_mixed_precision.configuration import AllocateBitsConfig
from drupe_mixed_precision.expert_choice import expert_options
from drupe_mixed_precision.groups import experts_of, groups_of
from drupe_mixed_precision.losses import CALIBRATED, SENSITIVITY
from drupe_mixed_precision.sensitivity_measurement import divergence, sensitivities
from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
from drupe_nbits import find_experts, find_sites
from drupe_onnx import capabilities_of, write_package
from drupe_onnxruntime.plain.runtime import OnnxRuntime
from drupe_quant_rtn.quantize_weights import QuantizeWeights, QuantizeWeightsConfig

SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_local_experts": 8,
         "vocab_size": 1024}  # fmt: skip


@pytest.fixture
def built(tmp_path: Path) -> tuple[Model, Context]:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "mixtral", **SIZES)
    context = Context(Cpu().target(), tmp_path / "scratch")
    model = Model("hf", checkpoint, payload=open_checkpoint(checkpoint))
    return BuildDecoder().run(model, BuildDecoderConfig(), context), context


def bits(model: Model) -> list[int]:
    return [site.scheme.bits for site in find_experts(model.payload.component.graph) if site.scheme is not None]


def allocated(built: tuple[Model, Context], **budget: Any) -> Model:
    model, context = built
    return AllocateBits().run(model, AllocateBitsConfig(**budget), context)


@pytest.mark.parametrize(
    ("budget", "eights"),
    [({}, {0}), ({"target_size": "2.1MB"}, {0}), ({"target_size": "3MB"}, {1, 2, 3}), ({"target_size": "9MB"}, {4}),
     ({"bits_per_weight": 4.6}, {0}), ({"bits_per_weight": 7.0}, {1, 2, 3}), ({"bits_per_weight": 8.9}, {4})],
)  # fmt: skip
def test_experts_of_a_layer_get_eight_bits_where_the_budget_has_room(
    budget: dict[str, Any], eights: set[int], built: tuple[Model, Context], tmp_path: Path
) -> None:
    model = allocated(built, **budget)
    found = bits(model)
    assert len(found) == 4 and set(found) <= {4, 8}
    assert found.count(8) in eights
    if "target_size" in budget:
        package = QuantizeWeights().run(model, QuantizeWeightsConfig(), built[1]).payload
        (tmp_path / "out").mkdir()
        write_package(package, tmp_path / "out", built[1])
        written = sum((tmp_path / "out" / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))
        assert written <= parse_size(budget["target_size"])


def test_a_limit_of_divergence_counts_experts_in_the_unit_of_what_was_measured(built: tuple[Model, Context]) -> None:
    model, _ = built
    for site in find_sites(model.payload.component.graph):
        site.node.metadata_props[SENSITIVITY] = "1e-3"
    assert bits(allocated(built, max_kl=1.0)) == [4] * 4


def test_the_strictest_limit_of_divergence_gives_experts_eight_bits(built: tuple[Model, Context]) -> None:
    model, _ = built
    for site in find_sites(model.payload.component.graph):
        site.node.metadata_props[SENSITIVITY] = "0.1"
    assert bits(allocated(built, max_kl=0.02)) == [8] * 4


@pytest.mark.parametrize("layer", [0, 2])
def test_the_experts_that_cost_most_get_eight_bits_first(layer: int, built: tuple[Model, Context]) -> None:
    graph = built[0].payload.component.graph
    for each in find_sites(graph):
        each.node.metadata_props[SENSITIVITY] = "1e-6"
    for number, site in enumerate(find_experts(graph)):
        site.node.metadata_props[SENSITIVITY] = "0.5" if number == layer else "0.01"
    found = allocated(built, bits_per_weight=5.5)
    assert [number for number, each in enumerate(bits(found)) if each == 8] == [layer]
    assert not any(SENSITIVITY in site.node.metadata_props for site in find_experts(found.payload.component.graph))


def test_a_calibration_lowers_what_experts_of_four_bits_cost(built: tuple[Model, Context]) -> None:
    model, context = built
    (site, *_) = find_experts(model.payload.component.graph)
    site.node.metadata_props[SENSITIVITY] = "0.5"
    plain, calibrated = (
        expert_options(site, capabilities_of(context.target), symmetric=False, calibrated=each, groups=[])
        for each in (False, True)
    )
    assert [each.scheme for each in plain] == [each.scheme for each in calibrated]
    assert calibrated[0].loss == pytest.approx(CALIBRATED * plain[0].loss)
    assert calibrated[1].loss == plain[1].loss


def test_the_sensitivities_of_a_block_add_up_to_what_rounding_its_matrices_and_experts_costs(
    built: tuple[Model, Context],
) -> None:
    model, context = built
    context = replace(context, threads=2, open=lambda each: OnnxRuntime().open(each, context.target))
    graph = model.payload.component.graph
    tokens = [np.random.default_rng(1).integers(3, 1000, 96).tolist()]
    parts = [*groups_of(graph), *experts_of(graph)]
    before = [each.weight.const_value for site in find_experts(graph) for each in (site.up, site.down)]
    found = sensitivities(model.payload.component, parts, tokens, context)
    assert all(found[each.name] > 0 for each in experts_of(graph))
    after = [each.weight.const_value for site in find_experts(graph) for each in (site.up, site.down)]
    assert all(one is other for one, other in zip(before, after, strict=True)), "the weights are as they were"
    expected = RecordedLogits(context.scratch / "logits")
    with LayerByLayer(model.payload.component, tokens, context) as layers:
        expected.record(layers.logits(64))
    for block in range(4):
        own = [each for each in parts if each.block == block]
        total = divergence(expected, model.payload.component, own, tokens, context)
        assert sum(found[each.name] for each in own) == pytest.approx(total)
