"""The choice of schemes: it keeps the budget, upgrades the matrices that gain most, and refuses impossible budgets."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from tiny import make_checkpoint

from drupe.api import Context, Model, UsageError, replace
from drupe_blockquant import Scheme
from drupe_checkpoints import open_checkpoint
from drupe_ep_cpu.provider import Cpu
from drupe_mixed_precision.allocate_bits import AllocateBits
from drupe_mixed_precision.budgets import GENEROUS, SLOWER
from drupe_mixed_precision.configuration import AllocateBitsConfig
from drupe_mixed_precision.groups import groups_of
from drupe_mixed_precision.losses import by_tables
from drupe_mixed_precision.scheme_choice import Budget, Candidate, choose
from drupe_mixed_precision.sizes import parse_size
from drupe_mixed_precision.usual_size import REFERENCE
from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig
from drupe_nbits import find_sites
from drupe_nbits.target_support import COMPUTED_ONCE, DECODE_TIMES, decode_time
from drupe_onnx import OnnxPackage, initializers_of, weight_bytes
from drupe_quant_rtn.quantize_weights import QuantizeWeights, QuantizeWeightsConfig


def built(folder: Path, model_type: str = "llama", **settings: object) -> tuple[Model, Context]:
    checkpoint = make_checkpoint(folder / "checkpoint", model_type, **settings)
    context = Context(Cpu().target(), folder / "scratch")
    model = Model("hf", checkpoint, payload=open_checkpoint(checkpoint))
    return BuildDecoder().run(model, BuildDecoderConfig(), context), context


def schemes(model: Model) -> list[Scheme | None]:
    return [site.scheme for site in find_sites(model.payload.component.graph)]


def test_upgrades_that_save_most_for_their_bytes_come_first() -> None:
    coarse, fine = Scheme(4, 128, False), Scheme(8, 128, False)
    groups = [[Candidate(coarse, 10, loss), Candidate(fine, 20, 0.0)] for loss in (1.0, 5.0, 3.0)]
    assert [each.nbytes for each in choose(groups, Budget(49))] == [10, 20, 10]
    assert [each.nbytes for each in choose(groups, Budget(50))] == [10, 20, 20]
    assert [each.nbytes for each in choose(groups, Budget(1000), enough=1.0)] == [10, 20, 20]
    for budget in range(30, 61, 10):
        possible = [pick for pick in itertools.product(*groups) if sum(each.nbytes for each in pick) <= budget]
        best = min(sum(each.loss for each in pick) for pick in possible)
        assert sum(each.loss for each in choose(groups, Budget(budget))) == best


def test_a_slow_upgrade_is_replaced_by_a_faster_one_within_the_time_limit() -> None:
    coarse, small, large = Scheme(4, 128, False), Scheme(4, 32, False), Scheme(8, 128, False)
    group = [Candidate(coarse, 10, 1.0, 2.0), Candidate(small, 12, 0.7, 3.0), Candidate(large, 20, 0.0, 2.5)]
    assert choose([group], Budget(12))[0].scheme == small
    assert choose([group], Budget(20, 2.9))[0].scheme == large
    assert choose([group], Budget(20, 2.4))[0].scheme == coarse
    assert choose([group], Budget(12, 2.9))[0].scheme == coarse


def decode_seconds(model: Model, context: Context, scheme: Scheme | None = None) -> float:
    """Decode time of a token by the target's table, with the chosen schemes, or with one scheme for all matrices."""
    sites = find_sites(model.payload.component.graph)
    capabilities = context.target.capabilities
    return sum(decode_time(site, scheme or site.scheme, capabilities) for site in sites if scheme or site.scheme)


def test_decode_time_is_limited_only_for_models_where_it_is_noticeable(tmp_path: Path) -> None:
    """With the default budget only bytes decide for a small model, and bytes and time for a large one."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "vocab_size": 512}
    coarsest = Scheme(4, 128, False)
    small, context = built(tmp_path / "small", **sizes)
    fastest = decode_seconds(small, context, coarsest)
    small = AllocateBits().run(small, AllocateBitsConfig(), context)
    assert decode_seconds(small, context) > 1.1 * SLOWER * fastest
    slow = {scheme: 1e4 * float(time) for scheme, time in context.target.capabilities.traits[DECODE_TIMES].items()}
    capabilities = replace(context.target.capabilities, traits={DECODE_TIMES: slow})
    context = Context(replace(context.target, capabilities=capabilities), tmp_path / "scratch")
    large, _ = built(tmp_path / "large", **sizes)
    fastest = decode_seconds(large, context, coarsest)
    large = AllocateBits().run(large, AllocateBitsConfig(), context)
    assert fastest < decode_seconds(large, context) <= SLOWER * fastest


def test_two_level_scales_are_used_if_they_save_bytes_and_take_no_time(tmp_path: Path) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "vocab_size": 1024}

    def two_level(name: str, *without: str, **config: object) -> set[bool]:
        model, context = built(tmp_path / name, **sizes)
        traits = {key: value for key, value in context.target.capabilities.traits.items() if key not in without}
        capabilities = replace(context.target.capabilities, traits=traits)
        context = Context(replace(context.target, capabilities=capabilities), tmp_path / "scratch")
        found = schemes(AllocateBits().run(model, AllocateBitsConfig(**config), context))
        return {scheme.two_level for scheme in found if scheme and scheme.block_size < 128}

    assert two_level("here") == {True}
    assert two_level("computed-at-each-run", COMPUTED_ONCE) == {False}
    assert two_level("symmetric", symmetric=True) == {False}


def test_the_default_budget_is_nearly_used_up_and_not_exceeded(tmp_path: Path) -> None:
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
    model, context = built(tmp_path, tie_word_embeddings=True, **sizes)
    groups = groups_of(model.payload.component.graph)
    budget = GENEROUS * sum(REFERENCE.bytes_for(*group.shape, 4) for group in groups)
    model = AllocateBits().run(model, AllocateBitsConfig(), context)
    spent = 0
    for group in groups_of(model.payload.component.graph):
        scheme = group.sites[0].scheme
        assert scheme is not None
        assert {site.scheme for site in group.sites} == {scheme}
        spent += scheme.bytes_for(*group.shape, 4)
    assert 0.9 * budget < spent <= budget


def test_the_bytes_saved_by_quantizing_an_embedding_go_to_other_matrices(tmp_path: Path) -> None:
    """The default budget counts an untied embedding with 16 bits, as the usual int4 package stores it."""
    found = {}
    for tied in (True, False):
        model, context = built(tmp_path / str(tied), tie_word_embeddings=tied, vocab_size=1024)
        found[tied] = schemes(AllocateBits().run(model, AllocateBitsConfig(), context))
    assert {scheme.bits for scheme in found[True] if scheme} == {4, 8}
    assert {scheme.bits for scheme in found[False] if scheme} == {8}


def test_a_tied_embedding_and_head_get_one_scheme(tmp_path: Path) -> None:
    model, context = built(tmp_path, tie_word_embeddings=True)
    groups = groups_of(AllocateBits().run(model, AllocateBitsConfig(), context).payload.component.graph)
    [tied] = [group for group in groups if len(group.sites) == 2]
    assert tied.roles == {"embedding", "head"}
    assert tied.sites[0].scheme == tied.sites[1].scheme is not None


@pytest.mark.parametrize(
    ("model_type", "more"),
    [("llama", True), ("qwen3", True), ("gemma2", False), ("gemma3_text", False), ("olmo2", False)],
)
def test_weights_of_the_first_block_count_more_unless_norms_give_results_another_size(
    model_type: str, more: bool, tmp_path: Path
) -> None:
    model, _ = built(tmp_path, model_type)
    first, second = (
        [by_tables(group) for group in groups_of(model.payload.component.graph) if group.block == block]
        for block in range(2)
    )
    assert (first[1:] == second[1:]) is not more, "all but queries, keys and values"


@pytest.mark.parametrize("given", [{"block_size": 32}, {"head_bits": 8}])
def test_no_schemes_are_assigned_if_the_user_sets_one(tmp_path: Path, given: dict[str, int]) -> None:
    model, context = built(tmp_path)
    assert set(schemes(AllocateBits().run(model, AllocateBitsConfig(**given), context))) == {None}
    with pytest.raises(UsageError, match="--target-size"):
        AllocateBits().run(model, AllocateBitsConfig(**given, target_size="1MB"), context)


def test_the_error_for_an_impossible_budget_names_the_least_possible_one(tmp_path: Path) -> None:
    model, context = built(tmp_path)
    with pytest.raises(UsageError, match="at least") as caught:
        AllocateBits().run(model, AllocateBitsConfig(target_size="1kB"), context)
    size, bits = re.fullmatch(r"--target-size (\S+), or --bits-per-weight (\S+)", caught.value.cure or "").groups()
    for enough in ({"target_size": size}, {"bits_per_weight": float(bits)}):
        model, context = built(tmp_path / next(iter(enough)))
        assert None not in schemes(AllocateBits().run(model, AllocateBitsConfig(**enough), context))


def test_a_target_size_limits_all_weights_together(tmp_path: Path) -> None:
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "vocab_size": 1024}
    model, context = built(tmp_path, **sizes)
    graph = model.payload.component.graph
    matrices = {site.weight.name for site in find_sites(graph)}
    others = sum(value.const_value.nbytes for name, value in graph.initializers.items() if name not in matrices)
    groups = groups_of(graph)
    model = AllocateBits().run(model, AllocateBitsConfig(target_size="500kB"), context)
    spent = sum(scheme.bytes_for(*group.shape, 4) for group in groups if (scheme := group.sites[0].scheme))
    assert 0 < others < 500_000
    assert 0.9 * 500_000 < spent + others <= 500_000


def test_a_larger_budget_gives_more_bits(tmp_path: Path) -> None:
    def mean_bits(bits: float) -> float:
        model, context = built(tmp_path / str(bits))
        found = schemes(AllocateBits().run(model, AllocateBitsConfig(bits_per_weight=bits), context))
        return sum(scheme.bits for scheme in found if scheme) / len(found)

    assert mean_bits(5.5) < mean_bits(7.0) <= mean_bits(9.0) == 8


def test_max_kl_without_measured_sensitivity_is_refused(tmp_path: Path) -> None:
    model, context = built(tmp_path)
    with pytest.raises(UsageError, match="measure-sensitivity"):
        AllocateBits().run(model, AllocateBitsConfig(max_kl=0.01), context)


def test_sizes_are_read_as_people_write_them() -> None:
    assert parse_size("250MB") == 250_000_000
    assert parse_size("1.5 GiB") == 3 << 29
    assert parse_size("12") == 12
    with pytest.raises(UsageError, match="heavy"):
        parse_size("heavy")


def test_a_budget_limits_all_parts_together(tmp_path: Path) -> None:
    """The target size limits the sum of the weights of all parts."""
    sizes = {"hidden_size": 128, "intermediate_size": 256}
    (draft, context), (main, _) = built(tmp_path / "draft", **sizes), built(tmp_path / "main", **sizes)
    package = OnnxPackage({"draft": draft.payload.component, "main": main.payload.component})
    model = Model("onnx", tmp_path, {"draft": {"weights": "float"}, "main": {"weights": "float"}}, package)
    assert AllocateBits.whole
    floats = weight_bytes(value for each in package.components.values() for value in initializers_of(each))
    AllocateBits().run(model, AllocateBitsConfig(target_size=f"{floats // 4}"), context)
    quantized = QuantizeWeights()
    for role, component in package.components.items():
        part = Model.single("onnx", tmp_path, {}, OnnxPackage({"model": component}))
        assert quantized.run(part, QuantizeWeightsConfig(), context), role
    stored = weight_bytes(value for each in package.components.values() for value in initializers_of(each))
    assert 0.8 * (floats // 4) < stored <= floats // 4
