"""recover-scales: nearer to the source at the same bytes, with the same levels; what is not trained is said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from drupe.api import Model, ModelError, RuntimeMissing
from drupe_layerwise import LayerByLayer, hidden_states
from drupe_onnx import OnnxKind, ir
from drupe_onnx.package_store import restore_package, store_package

pytest.importorskip("torch")

from drupe_recover import configuration
from drupe_recover.experts import expert_count
from drupe_recover.head import embeddings_of
from drupe_recover.recover_scales import RecoverConfig, RecoverScales
from drupe_recover.recovering import Judgement, divergences_of
from drupe_recover.trained import array_of

FAMILIES = ["llama", "gemma2", "gemma3_text", "qwen3", "phi3", "gpt2", "olmo2", "qwen3_moe", "gpt_oss"]


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"def parse_{n}(text): return [go for go in text][{n}]\n" for n in range(600)))
    return str(path)


def config(text: str | None = None, **given: Any) -> RecoverConfig:
    settings = {"calibration_data": text, "calibration_sequences": 8, "calibration_length": 32, "epochs": 2, **given}
    return RecoverConfig(**settings)


def recovered(kit: SimpleNamespace, model: Model, config: RecoverConfig) -> Model:
    return RecoverScales().run(OnnxKind().fork(model), config, kit.context())


def arrays(model: Model, *endings: str) -> dict[str, np.ndarray]:
    graph: ir.Graph = model.payload.component.graph
    return {name: array_of(value) for name, value in graph.initializers.items() if name.endswith(endings)}


def nbytes(model: Model) -> int:
    return sum(value.const_value.nbytes for value in model.payload.component.graph.initializers.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_torch_computes_each_block_as_the_runtime_does(kit: SimpleNamespace, family: str) -> None:
    import torch

    from drupe_recover.block import Block
    from drupe_recover.stages import stages_of

    model = kit.quantized(kit.random(family, pad_token_id=0), accuracy_level=0)
    for node in model.payload.component.graph:
        if "accuracy_level" in node.attributes:  # experts' activations have 8 bits otherwise
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 0)
    tokens = [list(range(2, 22)), list(range(30, 50))]
    with LayerByLayer(model.payload.component, tokens, kit.context()) as layers:
        for segment in layers.segments:
            for stage in stages_of(segment, hidden_states(segment)) if segment.block is not None else []:
                if stage.given:
                    layers.settle(segment, stage.gets)
                block = Block(stage, torch.device("cpu"))
                rows: dict[str, np.ndarray] = {}
                layers.collect(segment, stage.names, rows.__setitem__)
                (found,) = [block(given).detach().numpy() for given in layers.given(segment)]
                assert block.trained
                expected = sum(rows.values())
                np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=2e-4, rtol=2e-3)


def test_the_demo_model_comes_nearer_to_its_source_at_the_same_bytes_and_levels(kit: SimpleNamespace) -> None:
    before = kit.quantized(kit.demo(), symmetric=False, block_size=32)
    after = recovered(kit, before, config(calibration_sequences=8, calibration_length=64))
    (notice,) = after.notices
    assert (notice.about, notice.handling) == ("weights", "recovered")
    assert nbytes(after) == nbytes(before)
    held, changed = arrays(before, "_weight", "_zero_points"), arrays(after, "_weight", "_zero_points")
    assert held.keys() == changed.keys()
    assert all(np.array_equal(held[name], changed[name]) for name in held)
    scales, trained = arrays(before, "_scales"), arrays(after, "_scales")
    assert any(not np.array_equal(scales[name], trained[name]) for name in scales)
    assert fresh_divergence(kit, before, after) < fresh_divergence(kit, before, before)


def fresh_divergence(kit: SimpleNamespace, source: Model, model: Model) -> float:
    """The divergence of a model from the source of another, on tokens of another piece of the text."""
    fresh = RecoverScales().sequences(
        source, config(calibration_sequences=4, calibration_length=64, calibration_seed=9), kit.context()
    )
    float_graph = source.payload.sources["model"]
    with (
        LayerByLayer(float_graph, fresh, kit.context()) as wanted,
        LayerByLayer(model.payload.component, fresh, kit.context()) as own,
    ):
        return float(divergences_of(wanted, own).mean())


def test_a_change_that_may_be_chance_is_not_kept(kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(0.0, 0.1, 64)
    assert not Judgement.of(before, before + rng.normal(-1e-4, 0.01, 64)).fell
    assert Judgement.of(before, before + rng.normal(-1e-2, 0.01, 64)).fell
    assert not Judgement.of(before, before).fell
    monkeypatch.setattr("drupe_recover.recovering.CHANCE", 1e6)
    model = kit.quantized(kit.demo())
    after = recovered(kit, model, config(calibration_sequences=4, epochs=1))
    (notice,) = after.notices
    assert notice.handling == "not recovered" and "on the 32 tokens of the part held out" in notice.what
    held, now = arrays(model, "_scales"), arrays(after, "_scales")
    assert all(np.array_equal(held[name], now[name]) for name in held)


def test_scales_in_two_levels_stay_multiples_of_a_unit(kit: SimpleNamespace, text: str) -> None:
    from drupe_blockquant import Scheme
    from drupe_nbits import assign, find_sites

    model = kit.random("llama")
    for site in find_sites(model.payload.component.graph):
        assign(site.node, Scheme(4, 16, symmetric=False, method="search", two_level=True))
    before = kit.quantized(model)
    after = recovered(kit, before, config(text, learning_rate=0.02))
    scales, trained = arrays(before, "_scales"), arrays(after, "_scales")
    assert all(each.dtype == np.uint8 for each in trained.values())
    assert any(not np.array_equal(scales[name], trained[name]) for name in scales)


def test_a_table_in_parts_has_the_rows_of_all_of_them() -> None:
    """Mixed precision divides a table that head and look-up share."""
    rows = np.arange(24, dtype=np.float32).reshape(8, 3)
    tokens = ir.Value(name="tokens", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
    nodes, tables = [], []
    for part in (rows[:2], rows[2:]):
        tables.append(ir.Value(name=f"table-{len(part)}", const_value=ir.tensor(part)))
        moved = ir.node("Clip", [tokens])
        nodes += [moved, ir.node("Gather", [tables[-1], moved.outputs[0]])]
    graph = ir.Graph([tokens], [nodes[-1].outputs[0]], nodes=nodes, initializers=tables)
    found = embeddings_of(ir.Model(graph, ir_version=10), np.array([1, 2, 7]))
    assert found is not None
    np.testing.assert_array_equal(found, rows[[1, 2, 7]])


def test_experts_are_trained_at_the_same_levels(kit: SimpleNamespace, text: str) -> None:
    before = kit.quantized(kit.random("qwen3_moe"))
    after = recovered(kit, before, config(text))
    assert "stayed as before" not in after.notices[0].what
    held, changed = expert_arrays(before), expert_arrays(after)
    alike = {name for name in held if np.array_equal(held[name], changed[name])}
    assert {name for name in held if "scales" not in name} <= alike
    assert not alike.issuperset(name for name in held if "scales" in name)


def test_experts_that_do_not_fit_into_the_budget_are_trained_in_groups(
    kit: SimpleNamespace, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group is kept where its loss falls, which counts the other experts in."""
    before = kit.quantized(kit.random("qwen3_moe", num_hidden_layers=1))
    half = kit.context().memory_budget * 2
    monkeypatch.setattr("drupe_recover.recovering.held_bytes", lambda node: half // expert_count(node))
    after = recovered(kit, before, config(text, calibration_sequences=32))
    held, changed = expert_arrays(before), expert_arrays(after)
    scales = [name for name in held if "scales" in name]
    different = np.any([(held[name] != changed[name]).reshape(len(held[name]), -1).any(1) for name in scales], axis=0)
    assert different[: len(different) // 2].any() and different[len(different) // 2 :].any()


def expert_arrays(model: Model) -> dict[str, np.ndarray]:
    values = (value for node in model.payload.component.graph if node.op_type == "QMoE" for value in node.inputs)
    return {value.name or "": array_of(value) for value in values if value is not None and value.is_initializer()}


def test_weights_that_were_quantized_in_the_source_are_an_error(kit: SimpleNamespace, text: str) -> None:
    model = kit.quantized(kit.random("llama"))
    model.payload.sources = {}
    with pytest.raises(ModelError, match="nothing to recover them from"):
        recovered(kit, model, config(text))


def test_the_source_of_quantized_weights_survives_the_cache(kit: SimpleNamespace, tmp_path: Path) -> None:
    model = kit.quantized(kit.random("llama"))
    folder = tmp_path / "kept"
    folder.mkdir()
    store_package(model.payload, folder, tmp_path / "scratch")
    kept = restore_package(folder)
    tokens = [[3, 4, 5, 6]]
    rows = []
    for graph in (model.payload.sources["model"], kept.sources["model"]):
        with LayerByLayer(graph, tokens, kit.context()) as layers:
            rows.append(np.concatenate([chunk.rows for chunk in layers.logits()]))
    np.testing.assert_array_equal(rows[0], rows[1])


def test_that_torch_is_missing_is_said_before_the_work(kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeMissing, match="needs torch") as caught:
        configuration.refuse_missing()
    assert caught.value.cure == "pip install 'drupe[recover]'"
