"""GPTQ block by block: closer to the source, same bytes after a killed run, clear errors."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decoder_families
import numpy as np
import pytest
import tiny
from threadpoolctl import threadpool_limits

from drupe.api import Cancelled, Model, ModelError, Progress, UsageError, replace
from drupe_blockquant import Scheme, gptq_factor, gptq_rows
from drupe_layerwise import LayerByLayer
from drupe_nbits import assign, find_experts, find_sites
from drupe_onnx import Array, ExternalTensor, Files, OnnxKind, OnnxPackage, initializer, ir
from drupe_quant_gptq import experts, quantize_gptq
from drupe_quant_gptq.finished_segments import Finished
from drupe_quant_gptq.hessian import Hessian
from drupe_quant_gptq.quantize_gptq import QuantizeGptq, QuantizeGptqConfig
from drupe_quant_gptq.weigh_channels import WeighChannels, WeighChannelsConfig
from drupe_quant_rtn.quantize_weights import QuantizeWeights, QuantizeWeightsConfig
from drupe_text import TextTokenizer

SMALL = {"calibration_sequences": 8, "calibration_length": 128}


@pytest.fixture
def text(tmp_path: Path) -> str:
    """The text for calibrating tiny models."""
    path = tmp_path / "text.txt"
    path.write_text("".join(f"def parse_{n}(text): return [go for go in text][{n}]\n" for n in range(400)))
    return str(path)


def config(text: str, **given: Any) -> QuantizeGptqConfig:
    settings = {"calibration_data": text, "calibration_sequences": 6, "calibration_length": 32, **given}
    return QuantizeGptqConfig(**settings)


def graph(model: Model) -> ir.Graph:
    found: ir.Graph = model.payload.component.graph
    return found


class Killed(Exception):
    """Raised instead of killing the process."""


class KilledAfter(Progress):
    """Progress that ends the run after a number of blocks."""

    def __init__(self, blocks: int, error: type[BaseException] = Killed) -> None:
        self.left = blocks
        self.error = error

    def advance(self, amount: int) -> None:
        self.left -= amount
        if amount and not self.left:
            raise self.error


class Told(Progress):
    """Keeps what the steps are called."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def start(self, label: str, total: int, unit: str = "bytes") -> None:
        self.labels.append(label)


def test_gptq_is_closer_to_the_source_than_the_search(kit: SimpleNamespace) -> None:
    tokenizer = TextTokenizer.among(kit.demo().payload.files, kit.context().scratch)
    sequences = WeighChannelsConfig(**SMALL, calibration_seed=9).calibration_tokens(tokenizer)
    found = {}
    for name, model in {
        "source": kit.demo(),
        "search": QuantizeWeights().run(kit.demo(), QuantizeWeightsConfig(block_size=128), kit.context()),
        "gptq": QuantizeGptq().run(kit.demo(), QuantizeGptqConfig(block_size=128, **SMALL), kit.context("gptq")),
    }.items():
        logits = kit.logits(model, sequences[:4]).astype(np.float64)
        found[name] = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    likely = np.exp(found["source"])
    divergence = {name: (likely * (found["source"] - other)).sum(-1).mean() for name, other in found.items()}
    assert 0 < divergence["gptq"] < 0.6 * divergence["search"]


def test_each_matrix_is_solved_with_the_inputs_that_it_has_in_the_quantized_model(
    kit: SimpleNamespace, text: str
) -> None:
    settings = config(text, block_size=32, head_bits=4)
    model = QuantizeGptq().run(kit.random(), settings, kit.context())
    rows_of = {site.node.name: site.rows for site in find_sites(graph(kit.random()))}
    sequences = settings.calibration_tokens(TextTokenizer.among(model.payload.files, kit.context().scratch))
    solved = 0
    with (
        LayerByLayer(model.payload.component, sequences, kit.context("again")) as layers,
        Files() as files,
        threadpool_limits(1, "blas"),
    ):
        for segment in layers.segments:
            for node in [node for node in segment.nodes if node.op_type == "MatMulNBits"]:
                rows = rows_of[node.name].value(files)
                hessian = Hessian(rows.shape[1])
                layers.collect(segment, {node.inputs[0].name}, lambda _, given, hessian=hessian: hessian.add(given))
                wanted = gptq_rows(rows, gptq_factor(hessian.whole(), settings.damping), Scheme(4, 32, False))
                for value, array in zip(node.inputs[1:], wanted[:3], strict=True):
                    held = value.const_value.expression.value(files)
                    np.testing.assert_array_equal(held.reshape(array.shape), array)
                solved += 1
    assert solved == len(rows_of) - 1, "all but the embedding"


def test_resuming_a_killed_run_gives_the_same_bytes(
    kit: SimpleNamespace, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = config(text, head_bits=4)
    whole = kit.written(QuantizeGptq().run(kit.random(num_hidden_layers=3), settings, kit.context("whole")))
    assert not any((tmp_path / "cache" / "work").iterdir())

    with pytest.raises(Killed):
        QuantizeGptq().run(kit.random(num_hidden_layers=3), settings, kit.context("first", KilledAfter(2)))
    solved = []
    solve = quantize_gptq.Solver.solve

    def noted(self: Any, site: Any, *rest: Any) -> Any:
        solved.append(site.name)
        return solve(self, site, *rest)

    monkeypatch.setattr(quantize_gptq.Solver, "solve", noted)
    told = Told()
    resumed = QuantizeGptq().run(kit.random(num_hidden_layers=3), settings, kit.context("second", told))
    assert "GPTQ, 2 of 3 blocks were found in the cache" in told.labels
    assert solved
    assert all("layers.2" in name or "head" in name for name in solved)
    assert kit.written(resumed) == whole
    assert not any((tmp_path / "cache" / "work").iterdir())


@pytest.mark.parametrize(
    ("blocks", "told"), [(2, "it goes on after the 2 of 3 blocks"), (1, "after the 1 of 3 blocks")]
)
@pytest.mark.parametrize("stop", [KeyboardInterrupt, Cancelled])
def test_stopping_says_after_how_many_blocks_another_run_goes_on(
    kit: SimpleNamespace, text: str, blocks: int, told: str, stop: type[BaseException]
) -> None:
    def stopped(progress: Progress) -> Any:
        with pytest.raises((KeyboardInterrupt, Cancelled)) as raised:
            QuantizeGptq().run(kit.random(num_hidden_layers=3), config(text), kit.context("run", progress))
        return getattr(raised.value, "cure", None)

    class Refusing(Progress):
        def start(self, label: str, total: int, unit: str = "bytes") -> None:
            raise stop

    assert not stopped(Refusing()), "nothing is quantized yet"
    assert told in stopped(KilledAfter(blocks, stop))


def test_a_hessian_and_its_factor_are_the_same_for_any_number_of_threads() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 700, 1300)).astype(np.float32)
    found = []
    with threadpool_limits(1, "blas"):
        for threads in (1, 3):
            hessian = Hessian(1300, threads)
            for batch in rows:
                hessian.add(batch)
            found.append((hessian.whole(), gptq_factor(hessian.whole(), threads=threads).triangles))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    np.testing.assert_allclose(found[0][0], sum(batch.T @ batch for batch in rows.astype(float)), rtol=0, atol=1e-2)


@pytest.mark.parametrize("damage", ["no data", "zeros", "no note", "half a note"])
def test_damaged_results_of_finished_blocks_are_solved_again(
    kit: SimpleNamespace, text: str, tmp_path: Path, damage: str
) -> None:
    settings = config(text, head_bits=4)
    whole = kit.written(QuantizeGptq().run(kit.random(), settings, kit.context("whole")))
    with pytest.raises(Killed):
        QuantizeGptq().run(kit.random(), settings, kit.context("first", KilledAfter(1)))
    (folder,) = (tmp_path / "cache" / "work").iterdir()
    data, note = (next(folder.glob(f"1.{kind}")) for kind in ("data", "json"))
    if damage == "zeros":
        data.write_bytes(bytes(data.stat().st_size))
    elif damage == "half a note":
        note.write_text(note.read_text()[:20])
    else:
        (data if damage == "no data" else note).unlink()
    assert kit.written(QuantizeGptq().run(kit.random(), settings, kit.context("second"))) == whole


def test_results_of_other_settings_are_not_used(kit: SimpleNamespace, text: str) -> None:
    with pytest.raises(Killed):
        QuantizeGptq().run(kit.random(), config(text, damping=0.5), kit.context("first", KilledAfter(1)))
    made = [
        kit.written(QuantizeGptq().run(kit.random(), config(text, damping=damping), kit.context(f"with-{damping}")))
        for damping in (0.01, 0.5)
    ]
    assert made[0] != made[1]


def test_results_of_an_abandoned_run_are_removed_after_a_month(kit: SimpleNamespace, tmp_path: Path) -> None:
    work = tmp_path / "cache" / "work"
    for name, days in (("old", 31), ("new", 29)):
        (work / name).mkdir(parents=True)
        (work / name / "1.data").write_bytes(b"levels")
        then = time.time() - days * 24 * 3600
        os.utime(work / name, (then, then))
    Finished("mine")
    assert [path.name for path in work.iterdir()] == ["new"]


def test_the_cache_keeps_the_solved_model(kit: SimpleNamespace, text: str, tmp_path: Path) -> None:
    from drupe_onnx import OnnxKind

    context = kit.context("run")
    model = QuantizeGptq().run(kit.random(), config(text), context)
    before = kit.written(model)
    kept = tmp_path / "kept"
    kept.mkdir()
    OnnxKind().store(model, kept, context)
    shutil.rmtree(context.scratch)
    assert kit.written(OnnxKind().restore(Model("onnx", kept))) == before


def test_assigned_schemes_are_kept(kit: SimpleNamespace, text: str) -> None:
    model = kit.random()
    sites = [site for site in find_sites(graph(model)) if not site.is_look_up]
    for number, site in enumerate(sites):
        assign(site.node, Scheme(8, 32, True) if number % 2 else Scheme(4, 16, False))
    wanted = {site.node.name: site.scheme for site in sites}
    made = QuantizeGptq().run(model, config(text), kit.context())
    found = {
        node.name: Scheme(
            node.attributes["bits"].as_int(), node.attributes["block_size"].as_int(), len(node.inputs) < 4
        )
        for node in graph(made)
        if node.op_type == "MatMulNBits"
    }
    assert found == wanted


def test_a_tied_head_is_solved_and_shares_its_bytes_with_the_embedding(kit: SimpleNamespace, text: str) -> None:
    model = QuantizeGptq().run(kit.random(tie_word_embeddings=True), config(text, head_bits=4), kit.context())
    tables = {
        node.op_type: node.inputs[index].const_value.expression
        for node in graph(model)
        for operator, index in (("GatherBlockQuantized", 3), ("MatMulNBits", 3))
        if node.op_type == operator and node.metadata_props.get("drupe.role") in ("embedding", "head")
    }
    assert len(tables) == 2
    assert tables["GatherBlockQuantized"] == tables["MatMulNBits"]
    assert isinstance(tables["MatMulNBits"], ExternalTensor)


@pytest.mark.parametrize("case", ["zamba2", "zamba2, one block"])
def test_a_block_that_layers_share_is_solved_once_with_the_inputs_of_all_its_uses(
    case: str, kit: SimpleNamespace, text: str, tmp_path: Path
) -> None:
    checkpoint, _ = decoder_families.make(case, tmp_path / "zamba2")
    tiny.write_tokenizer(checkpoint)
    settings = config(text, block_size=32)
    model = QuantizeGptq().run(kit.build(checkpoint), settings, kit.context())
    plain, files = kit.build(checkpoint), Files()
    uses: dict[Any, list[Any]] = {}
    for site in find_sites(graph(plain)):
        uses.setdefault(site.rows, []).append(site)
    several = [sites for sites in uses.values() if len(sites) > 1 and not any(each.is_look_up for each in sites)]
    assert several
    hessians: dict[str, Any] = {}
    sequences = settings.calibration_tokens(TextTokenizer.among(model.payload.files, kit.context().scratch))
    with LayerByLayer(plain.payload.component, sequences, kit.context("again")) as layers, threadpool_limits(1, "blas"):
        for segment in layers.segments:
            for site in (each for sites in several for each in sites if each.node in segment.nodes):
                hessian = Hessian(site.rows.shape[1])
                layers.collect(segment, {site.activations.name}, lambda _, rows, hessian=hessian: hessian.add(rows))
                hessians[site.node.name] = hessian.whole()
    nodes = {node.name: node for node in graph(model)}
    for sites in several:
        whole = hessians[sites[0].node.name]
        for each in sites[1:]:
            whole = hessians[each.node.name] + whole
        wanted = gptq_rows(sites[0].rows.value(files), gptq_factor(whole, settings.damping), Scheme(4, 32, False))
        parts = [value.const_value.expression for value in nodes[sites[0].node.name].inputs[1:]]
        for site in sites:
            for value, array in zip(nodes[site.node.name].inputs[1:], wanted[:3], strict=True):
                held = value.const_value.expression
                np.testing.assert_array_equal(held.value(files).reshape(array.shape), array)
            assert all(value.const_value.expression in parts for value in nodes[site.node.name].inputs[1:])
    assert not list(kit.context().scratch.rglob("*.npy"))
    files.close()


@pytest.mark.parametrize("do", [QuantizeGptq().run, QuantizeGptq().preview], ids=["run", "preview"])
def test_the_error_for_too_few_tokens_says_how_many_are_needed(kit: SimpleNamespace, text: str, do: Any) -> None:
    few = config(text, calibration_sequences=1, calibration_length=8)
    with pytest.raises(UsageError, match="24 are needed") as caught:
        do(kit.random(), few, kit.context())
    assert caught.value.cure == "--calibration-sequences 3"


@pytest.mark.parametrize("runner", [QuantizeGptq(), WeighChannels()], ids=lambda runner: runner.name)
def test_the_error_for_nan_during_calibration_names_the_matrix(kit: SimpleNamespace, text: str, runner: Any) -> None:
    model = kit.random()
    norm = next(value for name, value in graph(model).initializers.items() if "layers.1.post_attention" in name)
    values = np.full(tuple(norm.shape), np.inf, np.float32)
    norm.const_value = ir.Tensor(values, name=norm.name)
    settings = runner.Config(calibration_data=text, calibration_sequences=6, calibration_length=32)
    with pytest.raises(ModelError, match=r"input of '.*layers.1.mlp"):
        runner.run(model, settings, kit.context())


def test_the_importance_of_a_channel_is_the_mean_square_of_its_inputs(kit: SimpleNamespace, text: str) -> None:
    settings = WeighChannelsConfig(calibration_data=text, calibration_sequences=3, calibration_length=16)
    model = WeighChannels().run(kit.random(tie_word_embeddings=True), settings, kit.context())
    weighed = {site.name: site for site in find_sites(graph(model)) if site.importance is not None}
    assert len(weighed) == sum(site.role not in ("embedding", "head") for site in find_sites(graph(model)))
    plain = kit.random(tie_word_embeddings=True)
    last = next(site for site in find_sites(graph(plain)) if "layers.1.mlp.down" in site.name)
    rows = []
    sequences = settings.calibration_tokens(TextTokenizer.among(plain.payload.files, kit.context().scratch))
    with LayerByLayer(plain.payload.component, sequences, kit.context("again")) as layers:
        layers.collect(layers.segments[2], {last.activations.name}, lambda _, values: rows.append(values))
    wanted = np.square(np.concatenate(rows), dtype=np.float64).mean(0)
    np.testing.assert_allclose(weighed[last.name].importance.values, wanted, rtol=1e-5)


def test_parts_of_one_model_share_a_scratch_folder(kit: SimpleNamespace, text: str) -> None:
    """The weights of a solved part do not change while the next part is solved."""
    settings, shared = config(text, head_bits=4), kit.context("shared")
    models = {"draft": kit.random(num_hidden_layers=1), "main": kit.random()}
    parts = {role: QuantizeGptq().run(model, settings, shared) for role, model in models.items()}
    again = {"draft": kit.random(num_hidden_layers=1), "main": kit.random()}
    for role, model in again.items():
        alone = QuantizeGptq().run(model, settings, kit.context(role))
        assert kit.written(parts[role]) == kit.written(alone)


def table_of_tokens() -> ir.Model:
    """A part that only looks up embeddings of tokens."""
    ids = ir.val("ids", ir.DataType.INT64, ["n"])
    table = initializer("table", Array(np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)))
    found = ir.node("Gather", [table, ids], name="look_up")
    found.outputs[0].name, found.outputs[0].dtype = "rows", ir.DataType.FLOAT
    graph = ir.Graph(
        [ids], found.outputs, nodes=[found], initializers=[table], opset_imports={"": 21}, name="embedding"
    )
    return ir.Model(graph, ir_version=10)


def test_an_embedding_only_part_is_quantized_beside_a_decoder(kit: SimpleNamespace, text: str) -> None:
    decoder = kit.random().payload
    package = OnnxPackage({"decoder": decoder.component, "embedding": table_of_tokens()}, decoder.files)
    whole = Model("onnx", Path("model"), {role: {"weights": "float"} for role in package.components}, package)
    QuantizeGptq().refuse_whole(whole, config(text), kit.context())
    part = OnnxKind().split(whole)["embedding"]
    QuantizeGptq().run(part, config(text), kit.context())
    assert [node.op_type for node in graph(part)] == ["GatherBlockQuantized"]


def test_a_model_of_an_embedding_only_is_refused(kit: SimpleNamespace, text: str) -> None:
    model = Model.single("onnx", Path("model"), {"weights": "float"}, OnnxPackage({"model": table_of_tokens()}))
    with pytest.raises(ModelError, match="no matrix product"):
        QuantizeGptq().refuse_whole(model, config(text), kit.context())


MIXTRAL = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 64, "head_dim": 16}


def experts_of(model: Model) -> list[np.ndarray]:
    """The levels and scales of all experts."""
    nodes = [node for node in graph(model) if node.op_type == "QMoE"]
    assert nodes
    with Files() as files:
        return [
            value.const_value.expression.value(files)
            for node in nodes
            for value in node.inputs[2:]
            if value is not None and value.const_value is not None
        ]


def test_experts_are_solved_on_the_rows_that_reach_them(kit: SimpleNamespace, text: str) -> None:
    model = QuantizeGptq().run(kit.random("mixtral", **MIXTRAL), config(text), kit.context("gptq"))
    assert "MoE" not in [node.op_type for node in graph(model)]
    searched = QuantizeWeights().run(kit.random("mixtral", **MIXTRAL), QuantizeWeightsConfig(), kit.context())
    assert [each.shape for each in experts_of(model)] == [each.shape for each in experts_of(searched)]
    assert not model.notices
    tokens = config(text).calibration_tokens(TextTokenizer.among(model.payload.files, kit.context().scratch))
    source, *others = (kit.logits(each, tokens) for each in (kit.random("mixtral", **MIXTRAL), model, searched))
    solved, found = (np.square(each - source).mean() for each in others)
    assert solved < 0.8 * found


def test_experts_that_few_tokens_reach_are_counted_in_a_notice(kit: SimpleNamespace, text: str) -> None:
    many = {**MIXTRAL, "num_local_experts": 32}
    few = {"calibration_sequences": 1, "calibration_length": 40}
    model = QuantizeGptq().run(kit.random("mixtral", **many), config(text, **few), kit.context("gptq"))
    (notice,) = model.notices
    assert (notice.about, notice.handling) == ("weights", "calibrated on few tokens")
    told = re.fullmatch(
        r"the calibration text reaches (\d+) of 64 experts with fewer than 16 tokens, and (\d+) of them by none: .*",
        notice.what,
    )
    assert told is not None
    assert 0 < int(told[2]) < int(told[1]) <= 64
    assert all(np.isfinite(each.astype(np.float32)).all() for each in experts_of(model))


def test_experts_are_the_same_for_any_number_of_threads_and_any_budget(kit: SimpleNamespace, text: str) -> None:
    found = []
    for threads, budget in ((1, 1 << 30), (3, 1)):
        context = replace(kit.context(f"with-{threads}"), threads=threads, memory_budget=budget)
        found.append(experts_of(QuantizeGptq().run(kit.random("mixtral", **MIXTRAL), config(text), context)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_experts_of_finished_blocks_are_taken_over(
    kit: SimpleNamespace, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = config(text, calibration_sequences=1, calibration_length=40)
    many = {**MIXTRAL, "num_local_experts": 16}
    whole = QuantizeGptq().run(kit.random("mixtral", **many), few, kit.context("whole"))
    with pytest.raises(Killed):
        QuantizeGptq().run(kit.random("mixtral", **many), few, kit.context("first", KilledAfter(1)))
    solved = []
    solve = quantize_gptq.ExpertSolver.solve
    monkeypatch.setattr(quantize_gptq.ExpertSolver, "solve", lambda each: solved.append(each) or solve(each))
    resumed = QuantizeGptq().run(kit.random("mixtral", **many), few, kit.context("second"))
    assert len(solved) == 1, "the experts of the second block"
    assert kit.written(resumed) == kit.written(whole)
    assert resumed.notices == whole.notices


def test_experts_with_an_unknown_activation_get_the_levels_of_the_search_and_the_model_says_so(
    kit: SimpleNamespace, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experts, "expert_activation", lambda node: None)
    model = QuantizeGptq().run(kit.random("mixtral", **MIXTRAL), config(text), kit.context("gptq"))
    assert [notice.handling for notice in model.notices] == ["quantized without calibration"]
    assert [node.op_type for node in graph(model)].count("QMoE") == 2


def test_experts_of_8_bits_are_rounded(kit: SimpleNamespace, text: str) -> None:
    before = kit.random("mixtral", **MIXTRAL)
    for site in find_experts(graph(before)):
        assign(site.node, Scheme(8, 32, False))
    model = QuantizeGptq().run(before, config(text), kit.context("gptq"))
    assert not model.notices
    assert all(node.attributes["expert_weight_bits"].as_int() == 8 for node in graph(model) if node.op_type == "QMoE")


def test_that_experts_are_not_weighed_is_said(kit: SimpleNamespace, text: str) -> None:
    settings = WeighChannelsConfig(calibration_data=text, calibration_sequences=1, calibration_length=40)
    found = WeighChannels().run(kit.random("mixtral", **MIXTRAL), settings, kit.context())
    assert [notice.handling for notice in found.notices] == ["not weighed"]


def test_blocks_that_experts_cannot_have_are_refused_with_those_that_they_can(kit: SimpleNamespace, text: str) -> None:
    with pytest.raises(UsageError, match=r"cannot run the experts .* in blocks of 256") as raised:
        QuantizeGptq().run(kit.random("mixtral", **MIXTRAL), config(text, block_size=256), kit.context())
    assert "--block-size 32" in str(raised.value.cure)
