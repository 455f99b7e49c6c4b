"""Passes that measure or rewrite weights, on small decoders that have every part and every layout of experts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import decoder_families
import numpy as np
import pytest
from pydantic import BaseModel

from drupe.api import Context, Model, ModelError, Pass, registry, target_of
from drupe_blockquant import Scheme
from drupe_checkpoints import open_checkpoint
from drupe_equalize.rotate_weights import RotateWeights
from drupe_equalize.scale_channels import ScaleChannels
from drupe_equalize.smooth_activations import SmoothActivations
from drupe_layerwise import LayerByLayer
from drupe_mixed_precision.groups import groups_of
from drupe_mixed_precision.losses import SENSITIVITY
from drupe_mixed_precision.measure_sensitivity import MeasureSensitivity
from drupe_model_builder.build_decoder import BuildDecoder
from drupe_model_builder.composition import Decoder
from drupe_model_builder.finding import composition_of
from drupe_model_builder.parts.step import Part
from drupe_nbits import assign, find_experts, find_sites
from drupe_quant_gptq.quantize_gptq import QuantizeGptq
from drupe_quant_gptq.weigh_channels import WeighChannels
from drupe_quant_rtn.quantize_weights import QuantizeWeights
from drupe_text.tokens import TextTokenizer

CASES = {
    "deepseek_v2, groups": {"LatentAttention", "Experts"},
    "kimi_linear": {"GatedDelta by channel", "LatentAttention"},
    "olmo_hybrid, rotation": {"GatedDelta"},
    "jamba, no experts": {"Mamba1", "MLP"},
    "granitemoehybrid, experts": {"Mamba2", "Experts"},
    "lfm2": {"ShortConv", "Attention"},
    "gemma4_text, small": {"BorrowedAttention", "LayerInput"},
    "gpt_oss, packed": {"Experts"},
    "nemotron_h, smaller experts": {"Experts"},
    "gemma4_text, experts": {"Experts in halves"},
    "gemma3n_text": {"Laurel"},
    "llama4_text, two experts": {"Experts of weighted inputs"},
    "zamba2": {"Mamba2", "Attention"},
    "jetmoe": {"ExpertAttention"},
    "recurrent_gemma": {"GatedRecurrence"},
    "minimax": {"LightningAttention"},
    "longcat_flash": {"Experts"},
}
"""The parts that each is there for. Experts are apart in deepseek_v2, merged in granitemoehybrid, without a gate in
nemotron_h; in gpt_oss they are woven, with biases, and in MXFP4; in halves where no operator has their activation.
gemma3n_text has several streams, and zamba2 blocks that layers share. Some experts of longcat_flash are idle."""
NOT_ROTATED = {
    "olmo_hybrid, rotation": "post_feedforward_layernorm",
    "gemma4_text, small": "per_layer_projection_norm/Split",
    "gemma4_text, experts": "experts/Column",
    "gemma3n_text": "per_layer_projection_norm/Split",
    "llama4_text, two experts": "experts/Column",
    "zamba2": "shared_transformer/Both",
    "jetmoe": "self_attention/Column",
    "longcat_flash": "experts/Kept",
    "minimax": "post_attention_layernorm",
}
"""The nodes that a rotation cannot pass through: norms on results and on the sum with the residual, inputs of layers,
experts with a row for each, what is joined with the embedding, and inputs that idle experts give back."""
EXPERTS = ("deepseek_v2, groups", "gemma4_text, experts", "gpt_oss, packed", "granitemoeshared", "mixtral", "olmoe",
           "llama4_text, two experts", "nemotron_h, smaller experts", "phimoe", "qwen3_moe")  # fmt: skip
"""Families with experts: chosen in every way, apart, merged and woven, with biases and shared ones, and in halves."""
LITTLE = {"calibration_sequences": 1, "calibration_length": 72}


class EightBits(Pass):
    """Gives 8 bits to every matrix but those of experts."""

    name = "eight-bits"

    class Config(BaseModel):
        pass

    def run(self, model: Model, config: Config, context: Context) -> Model:
        for site in find_sites(model.payload.component.graph):
            assign(site.node, Scheme(8, 16, False))
        return model


class Kit:
    """The checkpoints, made once, and what is done with their graphs. folder: takes what is written."""

    def __init__(self, folder: Path) -> None:
        found = registry()
        self._folder, self._numbers = folder, itertools.count()
        self._target, self._runtime = target_of(found.provider("cpu"), found), found.runtimes.make("onnxruntime")
        self._checkpoints: dict[str, Path] = {}
        self._expected: dict[str, Any] = {}
        self._source_outputs: dict[str, dict[str, Any]] = {}

    def checkpoint(self, name: str) -> Path:
        if name not in self._checkpoints:
            self._checkpoints[name] = decoder_families.make(name, self._new_folder())[0]
        return self._checkpoints[name]

    def after(self, name: str, *passes: tuple[Pass, dict[str, Any]]) -> Model:
        """The graph of a decoder after some passes."""
        model = Model("hf", self.checkpoint(name))
        built = (BuildDecoder(), {"weights": "float32", "all_logits": True})
        for each, settings in (built, *passes):
            model = each.run(model, each.Config(**settings), self._context())
        return model

    def text(self, name: str) -> list[list[int]]:
        """The tokens that the passes calibrate with."""
        files = self.after(name).payload.files
        return WeighChannels.Config(**LITTLE).calibration_tokens(TextTokenizer.among(files, self._new_folder()))

    def logits(self, name: str, model: Model) -> Any:
        with LayerByLayer(model.payload.component, self.text(name), self._context()) as layers:
            return np.concatenate([each.rows for each in layers.logits()])

    def expected(self, name: str) -> Any:
        """The logits of the decoder that no pass has changed."""
        if name not in self._expected:
            self._expected[name] = self.logits(name, self.after(name))
        return self._expected[name]

    def error(self, name: str, model: Model) -> float:
        """How far a model's logits are from those of the unchanged one: the root of the mean square."""
        return float(np.sqrt(np.square(self.logits(name, model) - self.expected(name)).mean()))

    def expert_errors(
        self, name: str, quantizer: Pass, settings: dict[str, Any], text: dict[str, Any]
    ) -> dict[str, float]:
        """The squared error of each layer's experts on the text, as a share of the unchanged decoder's output."""
        source, changed = self.outputs_of_experts(name, quantizer, settings, text)
        return {
            layer: float(np.square(changed[layer] - rows).mean() / np.square(rows).mean())
            for layer, rows in source.items()
        }

    def outputs_of_experts(
        self, name: str, quantizer: Pass, settings: dict[str, Any], text: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """The output of each layer's experts on the text: as they are, and where they are quantized."""
        key = f"{name} {text}"
        if key not in self._source_outputs:
            self._source_outputs[key] = self._outputs_of_experts(self.after(name), text)
        changed = self.after(name, (EightBits(), {}), (quantizer, {"block_size": 16, **settings}))
        return [self._source_outputs[key], self._outputs_of_experts(changed, text)]

    def _outputs_of_experts(self, model: Model, text: dict[str, Any]) -> dict[str, Any]:
        """The output of the last node with experts in each layer."""
        found: dict[str, Any] = {}
        tokenizer = TextTokenizer.among(model.payload.files, self._new_folder())
        tokens = WeighChannels.Config(**text).calibration_tokens(tokenizer)
        with LayerByLayer(model.payload.component, tokens, self._context()) as layers:
            for segment in layers.segments[1:-1]:
                names = [node.outputs[0].name for node in segment.nodes if node.op_type in ("MoE", "QMoE")]
                if names:
                    rows: list[Any] = []
                    layers.collect(segment, names[-1:], lambda _, each, rows=rows: rows.append(each))
                    found[names[-1]] = np.concatenate(rows)
                layers.advance(segment)
        return found

    def refuse_change(self, name: str, model: Model) -> None:
        expected = self.expected(name)
        np.testing.assert_allclose(self.logits(name, model), expected, atol=1e-4 * np.abs(expected).max(), rtol=0)

    def _context(self) -> Context:
        return Context(
            self._target, self._new_folder(), threads=1, open=lambda model: self._runtime.open(model, self._target)
        )

    def _new_folder(self) -> Path:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        return folder


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(tmp_path_factory.mktemp("parts"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRUPE_CACHE", str(tmp_path / "cache"))


def words(part: Any) -> str:
    """What the cases call a part."""
    kind = type(part).__name__
    if kind == "GatedDelta":
        return kind if part.decay.size == part.value_heads else f"{kind} by channel"
    if kind == "Experts" and part.weighs_input:
        return f"{kind} of weighted inputs"
    return f"{kind} in halves" if kind == "Experts" and part.activation is not None else kind


def composition(checkpoint: Path) -> Decoder:
    return composition_of(open_checkpoint(checkpoint))


@pytest.mark.parametrize("name", CASES)
def test_a_case_has_the_parts_that_it_stands_for(name: str, kit: Kit) -> None:
    assert CASES[name] <= {words(part) for part in composition(kit.checkpoint(name)).parts}


def test_the_cases_have_every_part() -> None:
    """Part is the union of all that can stand in a layer."""
    every = {each.__name__ for each in Part.__args__}
    assert {name.partition(" ")[0] for name in set().union(*CASES.values())} == every


@pytest.mark.parametrize("name", CASES)
def test_gptq_is_closer_to_the_source_than_the_error_search(name: str, kit: Kit) -> None:
    searched = kit.after(name, (QuantizeWeights(), {"block_size": 16, "method": "search"}))
    solved = kit.after(name, (QuantizeGptq(), {"block_size": 16, **LITTLE}))
    assert kit.error(name, solved) < 0.9 * kit.error(name, searched)
    told = [each for each in solved.notices if each.handling == "quantized without calibration"]
    assert not told, "the experts are calibrated as well"
    again = [each for each in solved.notices if each.handling == "quantized again"]
    assert len(again) == (name == "gpt_oss, packed")


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_of_eight_bits_give_nearly_what_they_give_in_floating_point(name: str, kit: Kit) -> None:
    """Both operators weigh the chosen experts in the same way. A token that changes its experts counts little."""
    source, changed = kit.outputs_of_experts(name, QuantizeWeights(), {"bits": 8}, LITTLE)
    first = next(iter(source))
    sizes = [np.linalg.norm(each, axis=1) for each in (changed[first] - source[first], source[first])]
    assert np.median(sizes[0][sizes[1] > 0] / sizes[1][sizes[1] > 0]) < 0.1


@pytest.mark.parametrize("name", EXPERTS)
def test_gptq_of_experts_is_closer_to_their_output_than_rounding(name: str, kit: Kit) -> None:
    """Everything else has 8 bits, so the errors are those of the experts."""
    text = {"calibration_sequences": 6, "calibration_length": 72}
    rounded = kit.expert_errors(name, QuantizeWeights(), {"method": "rtn"}, text)
    searched = kit.expert_errors(name, QuantizeWeights(), {"method": "search"}, text)
    solved = kit.expert_errors(name, QuantizeGptq(), text, text)
    assert solved.keys() == rounded.keys()
    for layer, error in solved.items():
        assert error < 0.95 * min(rounded[layer], searched[layer]), layer


@pytest.mark.parametrize("name", CASES)
def test_every_matrix_gets_a_sensitivity(name: str, kit: Kit) -> None:
    graph = kit.after(name, (MeasureSensitivity(), LITTLE)).payload.component.graph
    sites = [*find_experts(graph), *(site for group in groups_of(graph) for site in group.sites)]
    found = {site.name: float(site.node.metadata_props[SENSITIVITY]) for site in sites}
    assert len(found) > len(composition(kit.checkpoint(name)).layers)
    assert all(np.isfinite(each) and each > 0 for each in found.values())


@pytest.mark.parametrize("scaling", [ScaleChannels(), SmoothActivations()], ids=lambda each: each.name)
@pytest.mark.parametrize("name", CASES)
def test_scaled_channels_leave_the_output_as_it_is(name: str, scaling: Pass, kit: Kit) -> None:
    kit.refuse_change(name, kit.after(name, (scaling, LITTLE)))


@pytest.mark.parametrize("name", CASES)
def test_a_rotation_leaves_the_output_as_it_is_or_names_what_it_cannot_pass(name: str, kit: Kit) -> None:
    if name in NOT_ROTATED:
        with pytest.raises(ModelError, match=NOT_ROTATED[name]):
            kit.after(name, (RotateWeights(), {}))
    else:
        kit.refuse_change(name, kit.after(name, (RotateWeights(), {"seed": 5})))
