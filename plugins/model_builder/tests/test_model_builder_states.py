"""Decoders with states: what targets without the operators are told, and what passes and runs after the builder see."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import decoder_families
import numpy as np
import pytest

from drupe.api import Context, Model, PlanError, Target, registry, replace, target_of
from drupe_model_builder.build_decoder import BuildDecoder, BuildDecoderConfig

MIXERS = {
    "lfm2": ("CausalConvWithState", "a short convolution"),
    "qwen3_5_text": ("GatedDeltaNet", "linear attention"),
    "mamba2": ("GatedDeltaNet", "a Mamba-2 layer"),
}
"""A case for each mixer, with an operator that it needs, and what it is called."""
SEQUENCES = [[5, 71, 33, 90, 12, 7, 66], [8, 3, 19, 44, 2], [61, 4, 4, 58, 9, 17, 28]]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def checkpoint(name: str) -> Path:
        if name not in made:
            made[name] = decoder_families.make(name, tmp_path_factory.mktemp("states"))[0]
        return made[name]

    return checkpoint


@pytest.fixture(scope="module")
def processor() -> Target:
    found = registry()
    return target_of(found.provider("cpu"), found)


def built(checkpoint: Path, target: Target, folder: Path, **config: Any) -> Model:
    return BuildDecoder().run(Model("hf", checkpoint), BuildDecoderConfig(**config), Context(target, folder, threads=2))


@pytest.mark.parametrize("name", MIXERS)
def test_a_target_without_the_operator_of_a_mixer_is_refused_by_its_name(
    name: str, checkpoints: Any, processor: Target, tmp_path: Path
) -> None:
    operator, wanted_by = MIXERS[name]
    table = processor.capabilities
    known = {key: each for key, each in table.operators.items() if not key.endswith(f":{operator}")}
    without = replace(processor, capabilities=replace(table, operators=known))
    with pytest.raises(
        PlanError,
        match=f"'cpu' of drupe-ep-cpu [0-9.]+ has no {operator} for float32 activations, which {wanted_by} needs",
    ):
        built(checkpoints(name), without, tmp_path)


@pytest.mark.parametrize("name", MIXERS)
def test_quantizers_find_the_projections_and_leave_all_else_in_float(
    name: str, checkpoints: Any, processor: Target, tmp_path: Path
) -> None:
    from drupe_nbits import find_sites

    graph = built(checkpoints(name), processor, tmp_path).payload.component.graph
    found = {site.weight.name for site in find_sites(graph)}
    kept = {each.name for each in graph.initializers.values()} - found
    left = [each for each in kept if each.startswith(("model.layers.0.", "backbone.layers.0."))]
    ends = ("conv.weight", "conv1d.weight", "bias", "A_log", "A_log.float32", "dt_bias.float32", "D", "norm.weight")
    gates = "linear_attn.gates.weight"
    assert left and all(each.endswith((*ends, gates)) for each in left)
    assert any("in_proj" in each for each in found) and any("out_proj" in each for each in found)


@pytest.mark.parametrize("name", MIXERS)
def test_running_layer_by_layer_gives_the_logits_of_the_whole_graph(
    name: str, checkpoints: Any, processor: Target, kit: SimpleNamespace, tmp_path: Path
) -> None:
    from drupe_layerwise import LayerByLayer
    from drupe_onnxruntime.plain.runtime import OnnxRuntime

    checkpoint = checkpoints(name)
    package = kit.build(checkpoint, processor, tmp_path / "out", all_logits=True)
    model = built(checkpoint, processor, tmp_path).payload.component
    opening = Context(
        processor, tmp_path / "scratch", threads=1, open=lambda model: OnnxRuntime().open(model, processor)
    )
    with LayerByLayer(model, SEQUENCES, opening) as layers:
        found = {each.sequence: each.rows for each in layers.logits()}
    for number, sequence in enumerate(SEQUENCES):
        whole = kit.Stepper(package)([sequence])[0]
        np.testing.assert_allclose(found[number], whole, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("name", ["bloom", "gemma3_text", "lfm2", "gpt2"])
def test_what_a_block_hands_on_is_its_hidden_state(
    name: str, checkpoints: Any, processor: Target, tmp_path: Path
) -> None:
    """Biases by distance, tables and caches that later blocks read are no part of it."""
    from drupe_layerwise import hidden_states
    from drupe_layerwise.segments import segments_of

    graph = built(checkpoints(name), processor, tmp_path).payload.component.graph
    width = {value.name: value.shape[-1] for node in graph for value in node.outputs if value.shape}
    (hidden,) = {width[each] for each in hidden_states(segments_of(graph)[0])}
    for segment in segments_of(graph)[1:-1]:
        assert {width[each] for each in hidden_states(segment)} == {hidden}


def test_a_model_with_states_says_which_batches_it_refuses(checkpoints: Any, processor: Target, tmp_path: Path) -> None:
    (notice,) = built(checkpoints("lfm2"), processor, tmp_path).notices
    assert "a batch with padding among its new tokens is refused" in notice.what


def test_limits_of_time_steps_that_transformers_has_for_prompts_only_are_told(
    checkpoints: Any, processor: Target, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "limited"
    shutil.copytree(checkpoints("nemotron_h, ends with Mamba-2"), checkpoint)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    for smallest, told in ((0.001, 0), (0.25, 1)):
        (checkpoint / "config.json").write_text(json.dumps({**config, "time_step_min": smallest}), encoding="utf-8")
        notices = built(checkpoint, processor, tmp_path).notices
        assert sum("kept between 0.25 and inf for every token" in each.what for each in notices) == told
