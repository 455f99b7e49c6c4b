"""The pass `build-decoder`: from a checkpoint to a lazy ONNX graph."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Literal

from drupe.api import ONLY_PART, Context, Form, Model, Notice, Pass, PassConfig
from drupe_checkpoints import Checkpoint, checkpoint_of
from drupe_decoding import GENERATION_KEYS, TAKEN_FROM, asks_for_something
from drupe_model_builder.composition import Decoder
from drupe_model_builder.finding import composition_of, notices_of
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.latent_attention import LatentAttention
from drupe_model_builder.parts.mamba2 import Mamba2
from drupe_model_builder.parts.required import Lacking

if TYPE_CHECKING:
    from pathlib import Path

    from drupe_onnx import DecoderDescription

GENERATION = "generation_config.json"

RECURRENCE = Notice(
    "states",
    "limits",
    "the layers' states take in every token: after the first call, a batch with padding among its new tokens is "
    "refused; a beam search gives wrong text",
    "pad a batch in its first call only, and generate without beams, as drupe generate does",
)
SMALLEST_STEP = 0.001
"""The `time_step_min` of published models, which nearly no time step is below."""
FloatType = Literal["float32", "float16", "bfloat16"]


class BuildDecoderConfig(PassConfig):
    """The settings of `build-decoder`.

    weights: the type that matrices are stored in; by default the checkpoint's, which suits quantization. activations:
    the type that the graph computes in; by default the target's best. all_logits: the graph gives the logits of every
    token of the prompt, not only of the last one.
    """

    weights: FloatType | None = None
    activations: FloatType | None = None
    all_logits: bool = False


class BuildDecoder(Pass):
    """Reads config.json and the headers of the weights, and makes the graph. The weights are not read."""

    name = "build-decoder"
    summary = "turns a decoder's checkpoint into an ONNX graph with lazy weights"
    revision = 3
    Config = BuildDecoderConfig
    requires = Form("hf")
    ensures = Form("onnx", {"weights": "float", "packaged": "no"})

    def refuse(self, model: Model) -> None:
        """Checks config.json, headers and file names. numpy and the modules that build graphs are imported by `run`."""
        checkpoint = checkpoint_of(model)
        composition_of(checkpoint)
        checkpoint.refuse_incomplete()

    def describe(self, model: Model) -> dict[str, Any]:
        from drupe_model_builder.describing import described

        return described(composition_of(checkpoint_of(model)))

    def run(self, model: Model, config: Any, context: Context) -> Model:
        from drupe_model_builder.checkpoint_tensors import weights_of
        from drupe_model_builder.decoder import DecoderGraph
        from drupe_model_builder.graph import GraphBuilder
        from drupe_model_builder.precision import choose
        from drupe_model_builder.switching import SwitchedAdapters
        from drupe_onnx import LEFT_OUT, OnnxPackage, capabilities_of, describe_decoder, element_name

        checkpoint = checkpoint_of(model)
        decoder = composition_of(checkpoint)
        precision = choose(config.weights, config.activations, context.target)
        files = _files(checkpoint)  # checked before the weights, which may have to be downloaded
        weights = weights_of(checkpoint, decoder)
        adapters = SwitchedAdapters.of(checkpoint, weights)
        graph = GraphBuilder(weights.tensors, precision, capabilities_of(context.target), adapters.adapted)
        try:
            building = DecoderGraph(graph, weights.decoder)
            made = building.build(all_logits=config.all_logits)
        except Lacking as error:
            from drupe_model_builder.lacking_operators import unfit

            raise unfit(error.what, weights, element_name(graph.dtype), context.target) from None
        if weights.left_out:
            made.metadata_props[LEFT_OUT] = json.dumps(weights.left_out)
        described = description_of(checkpoint, weights.decoder, building.head_size, element_name(graph.dtype))
        describe_decoder(made, described)
        files |= adapters.files(graph.adapted_products.values(), graph.dtype, context.scratch)
        drops = decoder.head is not None and not config.all_logits
        facts = {"weights": "float", "logits": "last" if drops else "all", "packaged": "no"}
        notices = [*checkpoint.tokenizer.notices, *notices_of(checkpoint), *weights.notices]
        notices += [RECURRENCE] if decoder.has_recurrence else []
        notices += _limited_steps(decoder)
        built = model.but(kind="onnx", facts=facts, payload=OnnxPackage({ONLY_PART: made}, files))
        return built.noticed(*notices)


def _files(checkpoint: Checkpoint) -> dict[str, Path | bytes]:
    """The files beside the graph, with a generation_config.json where config.json holds settings for generating text.

    transformers, too, takes those settings from config.json where there is no generation_config.json.
    """
    files = dict(checkpoint.package_files())
    if checkpoint.has_generation_config:
        return files
    settings = {key: value for key, value in checkpoint.config.items() if key in GENERATION_KEYS}
    settings[TAKEN_FROM] = checkpoint.config.path.name
    if asks_for_something(settings):
        files[GENERATION] = (json.dumps(settings, indent=2) + "\n").encode()
    return files


def description_of(
    checkpoint: Checkpoint, decoder: Decoder, head_size: int | None, activations: str
) -> DecoderDescription:
    """The description of the decoder for later passes and runtimes.

    head_size: of the first layer's caches in the graph; None for a decoder without attention.
    """
    from drupe_onnx import DecoderDescription

    first = next((part for part in decoder.parts if isinstance(part, Attention | LatentAttention)), None)
    return DecoderDescription(
        model_type=decoder.model_type,
        hidden_size=decoder.hidden_size,
        layers=decoder.layer_count,
        heads=first.heads if first else 1,
        kv_heads=first.kv_heads if first else 1,
        head_dim=head_size or decoder.hidden_size,
        vocab_size=decoder.vocab_size,
        context_length=decoder.context_length,
        activations=activations,
        kv_dtype=activations,
        bos=next(iter(checkpoint.tokens("bos_token_id")), None),
        eos=checkpoint.end_tokens,
        pad=next(iter(checkpoint.tokens("pad_token_id")), None),
    )


def _limited_steps(decoder: Decoder) -> list[Notice]:
    """What to know of limits on time steps, which transformers has for prompts only, and not token by token."""
    limits = {part.limits for part in decoder.parts if isinstance(part, Mamba2)}
    narrow = sorted(each for each in limits if each[0] > SMALLEST_STEP or each[1] < math.inf)
    return [
        Notice(
            "config.json",
            "chosen",
            f"the time steps of Mamba-2 are kept between {low:g} and {high:g} for every token; transformers does so in "
            "a prompt only, and computes something else token by token",
            "correct time_step_min or time_step_limit if the model was trained without the limits",
        )
        for low, high in narrow
    ]
