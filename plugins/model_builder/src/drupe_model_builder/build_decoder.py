"""The pass `build-decoder`: from a checkpoint to a lazy ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from drupe.api import Context, Model, Pass, PassConfig, Shape
from drupe_huggingface import Checkpoint
from drupe_model_builder.architectures import recipe_for
from drupe_model_builder.recipe import DecoderRecipe

if TYPE_CHECKING:
    from drupe_onnx import DecoderDescription

FloatType = Literal["float32", "float16", "bfloat16"]


class BuildDecoderConfig(PassConfig):
    """weights: what matrices are stored in; by default what the checkpoint has, which suits a graph to be quantized.

    activations: what the graph computes in; by default what the target does best. all_logits: logits for every token
    of the prompt, not for the last one only.
    """

    weights: FloatType | None = None
    activations: FloatType | None = None
    all_logits: bool = False


class BuildDecoder(Pass):
    """Reads config.json and the headers of the weights, and writes the graph; weights stay where they are."""

    name = "build-decoder"
    summary = "turns a decoder's checkpoint into an ONNX graph with lazy weights"
    revision = 1
    Config = BuildDecoderConfig
    requires = Shape("hf")
    ensures = Shape("onnx", {"weights": "float", "packaged": "no"})

    def refuse(self, model: Model) -> None:
        """From config.json, headers and names of files; what builds graphs, and numpy with it, is imported by `run`."""
        checkpoint: Checkpoint = model.payload or Checkpoint.open(model.location)
        recipe_for(checkpoint)
        checkpoint.refuse_incomplete()

    def run(self, model: Model, config: Any, context: Context) -> Model:
        from drupe_model_builder.checks import weights_of
        from drupe_model_builder.decoder import build
        from drupe_model_builder.graph import GraphBuilder
        from drupe_model_builder.precision import choose
        from drupe_onnx import OnnxPackage
        from drupe_onnx.checking import element_name

        checkpoint: Checkpoint = model.payload or Checkpoint.open(model.location)
        recipe = recipe_for(checkpoint)
        precision = choose(config.weights, config.activations, context.target)
        files = dict(checkpoint.package_files())  # before the weights, which may have to be downloaded
        weights = weights_of(checkpoint, recipe)
        graph = GraphBuilder(weights, precision, context.target.capabilities)
        package = OnnxPackage(
            components={"model": build(graph, recipe, all_logits=config.all_logits)},
            files=files,
        )
        package.decoder = describe(checkpoint, recipe, element_name(graph.dtype))
        facts = {"weights": "float", "logits": "all" if config.all_logits else "last", "packaged": "no"}
        return Model("onnx", model.location, facts, package)


def describe(checkpoint: Checkpoint, recipe: DecoderRecipe, activations: str) -> DecoderDescription:
    """What later passes and runtimes ask about the decoder."""
    from drupe_onnx import DecoderDescription

    return DecoderDescription(
        model_type=recipe.model_type,
        hidden_size=recipe.hidden_size,
        layers=recipe.layers,
        heads=recipe.heads,
        kv_heads=recipe.kv_heads,
        head_dim=recipe.head_dim,
        vocab_size=recipe.vocab_size,
        context_length=recipe.context_length,
        activations=activations,
        kv_dtype=activations,
        bos=next(iter(checkpoint.tokens("bos_token_id")), None),
        eos=checkpoint.tokens("eos_token_id"),
        pad=next(iter(checkpoint.tokens("pad_token_id")), None),
    )
