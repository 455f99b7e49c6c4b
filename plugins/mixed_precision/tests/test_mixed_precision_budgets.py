"""Budgets hold for what is written: the graph counts with the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny import make_checkpoint

from drupe.api import Context, Model, UsageError
from drupe_blockquant import Scheme
from drupe_checkpoints import open_checkpoint
from drupe_ep_cpu.provider import Cpu
from drupe_ep_cuda.provider import Cuda
from drupe_mixed_precision import budgets
from drupe_mixed_precision.allocate_bits import AllocateBits
from drupe_mixed_precision.assignment import parts_of
from drupe_mixed_precision.budgets import GENEROUS, Allocation, choose_within_budget
from drupe_mixed_precision.configuration import AllocateBitsConfig
from drupe_mixed_precision.losses import SENSITIVITY
from drupe_mixed_precision.scheme_choice import options
from drupe_mixed_precision.usual_size import REFERENCE, usual_package_bytes
from drupe_mixed_precision.written_size import written_bytes
from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
from drupe_nbits import find_sites
from drupe_onnx import OnnxPackage, write_package
from drupe_quant_rtn.quantize_weights import QuantizeWeights, QuantizeWeightsConfig

SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "vocab_size": 4096}


def built(folder: Path, provider: type[Cpu] | type[Cuda] = Cpu, **settings: Any) -> tuple[Model, Context]:
    """A decoder large enough for scales of two levels and a vocabulary in parts."""
    checkpoint = make_checkpoint(folder / "checkpoint", "llama", tie_word_embeddings=True, **{**SIZES, **settings})
    context = Context(provider().target(), folder / "scratch")
    model = Model("hf", checkpoint, payload=open_checkpoint(checkpoint))
    return BuildDecoder().run(model, BuildDecoderConfig(), context), context


def written(model: Model, context: Context, folder: Path) -> int:
    """Bytes of model.onnx and model.onnx.data, once the weights are quantized."""
    package = QuantizeWeights().run(model, QuantizeWeightsConfig(), context).payload
    folder.mkdir(parents=True)
    write_package(package, folder, context)
    return sum((folder / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))


def usual(model: Model, context: Context) -> int:
    package: OnnxPackage = model.payload
    parts = parts_of(package)
    return usual_package_bytes(package, parts, [True] * len(parts), context.target.capabilities)


@pytest.mark.parametrize("provider", [Cpu, Cuda])
def test_the_size_that_a_choice_is_said_to_have_is_what_is_written(
    provider: type[Cpu] | type[Cuda], tmp_path: Path
) -> None:
    model, context = built(tmp_path, provider)
    graph = AllocateBits().run(model, AllocateBitsConfig(), context).payload.component.graph
    before = [node.op_type for node in graph]
    assert len({site.scheme for site in find_sites(graph)}) > 1
    found = written_bytes(model.payload, [None] * len(parts_of(model.payload)), context.target.capabilities)
    assert [node.op_type for node in graph] == before, "a copy was rewritten"
    assert found == written(model, context, tmp_path / "out")


@pytest.mark.parametrize("provider", [Cpu, Cuda])
def test_the_default_budget_holds_for_graph_and_weights(provider: type[Cpu] | type[Cuda], tmp_path: Path) -> None:
    model, context = built(tmp_path, provider)
    allowed = GENEROUS * usual(model, context)
    size = written(AllocateBits().run(model, AllocateBitsConfig(), context), context, tmp_path / "out")
    assert 0.985 * allowed < size <= allowed


@pytest.mark.parametrize("size", ["2.1MB", "2400kB", "3MB"])
def test_a_target_size_holds_for_graph_and_weights(size: str, tmp_path: Path) -> None:
    model, context = built(tmp_path)
    asked = budgets.parse_size(size)
    found = written(AllocateBits().run(model, AllocateBitsConfig(target_size=size), context), context, tmp_path / "out")
    assert 0.985 * asked < found <= asked


def test_the_least_target_size_that_a_refusal_names_is_kept(tmp_path: Path) -> None:
    model, context = built(tmp_path)
    with pytest.raises(UsageError, match="graph and weights take at least") as caught:
        AllocateBits().run(model, AllocateBitsConfig(target_size="1kB"), context)
    size = (caught.value.cure or "").split()[1].rstrip(",")
    found = written(AllocateBits().run(model, AllocateBitsConfig(target_size=size), context), context, tmp_path / "out")
    assert budgets.parse_size(size) - 1000 <= found <= budgets.parse_size(size)


def test_bits_a_weight_are_those_of_the_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, context = built(tmp_path)
    monkeypatch.setattr(budgets, "written_bytes", None)
    AllocateBits().run(model, AllocateBitsConfig(bits_per_weight=5), context)


def test_nothing_is_measured_where_the_graph_cannot_make_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matrices so large that time keeps them far below the budget."""
    model, context = built(tmp_path, hidden_size=1024, intermediate_size=2048)
    monkeypatch.setattr(budgets, "UNNOTICED", 0.0)
    monkeypatch.setattr(budgets, "written_bytes", None)
    monkeypatch.setattr(budgets, "usual_package_bytes", None)
    AllocateBits().run(model, AllocateBitsConfig(), context)
    assert None not in {site.scheme for site in find_sites(model.payload.component.graph)}


@pytest.mark.parametrize("provider", [Cpu, Cuda])
@pytest.mark.parametrize("bits", [4.6, 5.5, 7.0])
def test_schemes_add_less_to_a_graph_than_is_allowed_for(
    provider: type[Cpu] | type[Cuda], bits: float, tmp_path: Path
) -> None:
    model, context = built(tmp_path, provider)
    capabilities = context.target.capabilities
    parts = parts_of(model.payload)
    candidates = [options(part, capabilities, symmetric=False) for part in parts]
    given = Allocation(AllocateBitsConfig(bits_per_weight=bits), model.payload, capabilities, parts, candidates)
    chosen = choose_within_budget(given)

    def graph_bytes(schemes: Sequence[Scheme | None]) -> int:
        """As far as the weights of the parts are not counted."""
        pairs = zip(parts, schemes, strict=True)
        weights = sum(scheme.bytes_for(*part.shape, part.scale_bytes) for part, scheme in pairs if scheme)
        return written_bytes(model.payload, schemes, capabilities) - weights

    added = graph_bytes(given.schemes(chosen)) - graph_bytes([REFERENCE] * len(parts))
    assert 0 < added < budgets._most_in_graph(given, chosen) < 4 * added + 40_000


def test_what_passes_leave_for_each_other_is_not_written(tmp_path: Path) -> None:
    model, context = built(tmp_path)
    graph = model.payload.component.graph
    for site in find_sites(graph):
        site.node.metadata_props[SENSITIVITY] = "0.01"
    QuantizeWeights().run(AllocateBits().run(model, AllocateBitsConfig(), context), QuantizeWeightsConfig(), context)
    left = {key for node in graph for key in node.metadata_props}
    assert left == {"drupe.role", "drupe.block"}
