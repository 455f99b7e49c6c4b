"""The pass `build-decoder`: from a checkpoint to a lazy ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from drupe.api import ONLY_PART, Context, Form, Model, Notice, Pass, PassConfig
from drupe_checkpoints import Checkpoint, open_checkpoint
from drupe_model_builder.composition import Decoder
from drupe_model_builder.families import composition_of

if TYPE_CHECKING:
    from drupe_onnx import DecoderDescription

RECURRENCE = Notice(
    "states",
    "rows of equal length",
    "the layers' states take in every token, so a batch of unequal rows is refused, and a beam search is wrong",
    "run texts one by one, or texts of one length together, and without beams, as drupe run does",
)
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
    revision = 1
    Config = BuildDecoderConfig
    requires = Form("hf")
    ensures = Form("onnx", {"weights": "float", "packaged": "no"})

    def refuse(self, model: Model) -> None:
        """Checks config.json, headers and file names. numpy and the modules that build graphs are imported by `run`."""
        checkpoint: Checkpoint = model.payload or open_checkpoint(model.location)
        composition_of(checkpoint)
        checkpoint.refuse_incomplete()

    def run(self, model: Model, config: Any, context: Context) -> Model:
        from drupe_model_builder.checkpoint_tensors import weights_of
        from drupe_model_builder.decoder import build
        from drupe_model_builder.graph import GraphBuilder
        from drupe_model_builder.precision import choose
        from drupe_onnx import OnnxPackage, capabilities_of, describe_decoder, element_name

        checkpoint: Checkpoint = model.payload or open_checkpoint(model.location)
        decoder = composition_of(checkpoint)
        precision = choose(config.weights, config.activations, context.target)
        files = dict(checkpoint.package_files())  # checked before the weights, which may have to be downloaded
        weights = weights_of(checkpoint, decoder)
        graph = GraphBuilder(weights, precision, capabilities_of(context.target))
        built = build(graph, decoder, all_logits=config.all_logits)
        describe_decoder(built, description_of(checkpoint, decoder, element_name(graph.dtype)))
        facts = {"weights": "float", "logits": "all" if config.all_logits else "last", "packaged": "no"}
        made = model.but(kind="onnx", facts=facts, payload=OnnxPackage({ONLY_PART: built}, files))
        return made.noticed(RECURRENCE) if decoder.has_recurrence else made


def description_of(checkpoint: Checkpoint, decoder: Decoder, activations: str) -> DecoderDescription:
    """The description of the decoder for later passes and runtimes."""
    from drupe_onnx import DecoderDescription

    first = next(iter(decoder.attentions), None)
    return DecoderDescription(
        model_type=decoder.model_type,
        hidden_size=decoder.hidden_size,
        layers=len(decoder.layers),
        heads=first.heads if first else 1,
        kv_heads=first.kv_heads if first else 1,
        head_dim=first.head_dim if first else decoder.hidden_size,
        vocab_size=decoder.vocab_size,
        context_length=decoder.context_length,
        activations=activations,
        kv_dtype=activations,
        bos=next(iter(checkpoint.tokens("bos_token_id")), None),
        eos=checkpoint.tokens("eos_token_id"),
        pad=next(iter(checkpoint.tokens("pad_token_id")), None),
    )
