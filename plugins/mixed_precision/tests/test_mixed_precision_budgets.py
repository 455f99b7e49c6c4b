"""Budgets count the bytes that are written: the graph and the weights."""

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
from drupe_mixed_precision.scheme_choice import candidates_of
from drupe_mixed_precision.usual_size import REFERENCE, usual_package_bytes
from drupe_mixed_precision.written_size import written_bytes
from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
from drupe_nbits import find_sites
from drupe_onnx import OnnxPackage, write_package
from drupe_quant_rtn.quantize_weights import QuantizeWeights, QuantizeWeightsConfig

SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "vocab_size": 4096}


def built(folder: Path, provider: type[Cpu] | type[Cuda] = Cpu, **settings: Any) -> tuple[Model, Context]:
    """A decoder large enough for two-level scales and a vocabulary in several parts."""
    checkpoint = make_checkpoint(folder / "checkpoint", "llama", tie_word_embeddings=True, **{**SIZES, **settings})
    context = Context(provider().target(), folder / "scratch")
    model = Model("hf", checkpoint, payload=open_checkpoint(checkpoint))
    return BuildDecoder().run(model, BuildDecoderConfig(), context), context


def written(model: Model, context: Context, folder: Path) -> int:
    """Bytes of model.onnx and model.onnx.data after quantizing the weights."""
    package = QuantizeWeights().run(model, QuantizeWeightsConfig(), context).payload
    folder.mkdir(parents=True)
    write_package(package, folder, context)
    return sum((folder / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))


def usual(model: Model, context: Context) -> int:
    package: OnnxPackage = model.payload
    parts = parts_of(package)
    return usual_package_bytes(package, parts, [True] * len(parts), context.target.capabilities)


@pytest.mark.parametrize("provider", [Cpu, Cuda])
def test_the_predicted_size_equals_the_written_size(provider: type[Cpu] | type[Cuda], tmp_path: Path) -> None:
    model, context = built(tmp_path, provider)
    graph = AllocateBits().run(model, AllocateBitsConfig(), context).payload.component.graph
    before = [node.op_type for node in graph]
    assert len({site.scheme for site in find_sites(graph)}) > 1
    found = written_bytes(model.payload, [None] * len(parts_of(model.payload)), context.target.capabilities)
    assert [node.op_type for node in graph] == before, "a copy was rewritten"
    assert found == written(model, context, tmp_path / "out")


@pytest.mark.parametrize("provider", [Cpu, Cuda])
def test_graph_and_weights_stay_within_the_default_budget(provider: type[Cpu] | type[Cuda], tmp_path: Path) -> None:
    model, context = built(tmp_path, provider)
    allowed = GENEROUS * usual(model, context)
    size = written(AllocateBits().run(model, AllocateBitsConfig(), context), context, tmp_path / "out")
    assert 0.985 * allowed < size <= allowed


@pytest.mark.parametrize("size", ["2.1MB", "2400kB", "3MB"])
def test_graph_and_weights_stay_within_the_target_size(size: str, tmp_path: Path) -> None:
    model, context = built(tmp_path)
    asked = budgets.parse_size(size)
    found = written(AllocateBits().run(model, AllocateBitsConfig(target_size=size), context), context, tmp_path / "out")
    assert 0.985 * asked < found <= asked


def test_the_least_target_size_named_by_the_error_can_be_reached(tmp_path: Path) -> None:
    model, context = built(tmp_path)
    with pytest.raises(UsageError, match="graph and weights take at least") as caught:
        AllocateBits().run(model, AllocateBitsConfig(target_size="1kB"), context)
    size = (caught.value.cure or "").split()[1].rstrip(",")
    found = written(AllocateBits().run(model, AllocateBitsConfig(target_size=size), context), context, tmp_path / "out")
    assert budgets.parse_size(size) - 1000 <= found <= budgets.parse_size(size)


def test_the_error_for_an_impossible_max_kl_names_float_precisions_only_if_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, context = built(tmp_path)
    for site in find_sites(model.payload.component.graph):
        site.node.metadata_props[SENSITIVITY] = "1.0"

    def cure() -> str:
        with pytest.raises(UsageError, match=r"8 bits, .* to cost \S+ to \S+ nats") as caught:
            AllocateBits().run(model, AllocateBitsConfig(max_kl=1e-9), context)
        return caught.value.cure or ""

    assert cure().startswith("--precision fp16 ") and "which should succeed" in cure()
    recipes = [recipe for recipe in Cpu().recipes() if recipe.quantizes]
    monkeypatch.setattr(Cpu, "recipes", lambda self: recipes)
    assert cure().startswith("--max-kl ")


def test_bits_per_weight_count_the_weights_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, context = built(tmp_path)
    monkeypatch.setattr(budgets, "written_bytes", None)
    AllocateBits().run(model, AllocateBitsConfig(bits_per_weight=5), context)


def test_the_graph_is_not_measured_if_it_cannot_decide_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The matrices are so large that the limit on decode time keeps them far below the byte budget."""
    model, context = built(tmp_path, hidden_size=1024, intermediate_size=2048)
    monkeypatch.setattr(budgets, "UNNOTICED", 0.0)
    monkeypatch.setattr(budgets, "written_bytes", None)
    monkeypatch.setattr(budgets, "usual_package_bytes", None)
    AllocateBits().run(model, AllocateBitsConfig(), context)
    assert None not in {site.scheme for site in find_sites(model.payload.component.graph)}


@pytest.mark.parametrize("provider", [Cpu, Cuda])
@pytest.mark.parametrize("bits", [4.6, 5.5, 7.0])
def test_schemes_add_fewer_bytes_to_a_graph_than_the_upper_bound(
    provider: type[Cpu] | type[Cuda], bits: float, tmp_path: Path
) -> None:
    model, context = built(tmp_path, provider)
    capabilities = context.target.capabilities
    parts = parts_of(model.payload)
    candidates = [candidates_of(part, capabilities, symmetric=False) for part in parts]
    given = Allocation(AllocateBitsConfig(bits_per_weight=bits), model.payload, capabilities, parts, candidates)
    chosen = choose_within_budget(given)

    def graph_bytes(schemes: Sequence[Scheme | None]) -> int:
        """Bytes of the package without the weights of its matrices."""
        pairs = zip(parts, schemes, strict=True)
        weights = sum(scheme.bytes_for(*part.shape, part.scale_bytes) for part, scheme in pairs if scheme)
        return written_bytes(model.payload, schemes, capabilities) - weights

    added = graph_bytes(given.schemes(chosen)) - graph_bytes([REFERENCE] * len(parts))
    assert 0 < added < budgets._most_in_graph(given, chosen) < 4 * added + 40_000


def test_metadata_that_passes_leave_for_each_other_is_not_written(tmp_path: Path) -> None:
    model, context = built(tmp_path)
    graph = model.payload.component.graph
    for site in find_sites(graph):
        site.node.metadata_props[SENSITIVITY] = "0.01"
    QuantizeWeights().run(AllocateBits().run(model, AllocateBitsConfig(), context), QuantizeWeightsConfig(), context)
    left = {key for node in graph for key in node.metadata_props}
    assert left <= {"drupe.role", "drupe.block", "drupe.rows"}
