"""The pass `package-embedding`: a graph that gives hidden states becomes a package that gives embeddings of texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from drupe.api import Context, Form, Model, ModelError, Notice, Pass, PassConfig
from drupe_feature_extraction.choices import POOLINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drupe_checkpoints import SentenceModules
    from drupe_onnx import OnnxPackage, ir

TOKENIZER = "tokenizer.json"
AS_THE_CARD_SAYS = "--pooling last, mean or cls, as the model's card says"


class PackageEmbeddingConfig(PassConfig):
    """The settings of `package-embedding`."""

    pooling: Literal["last", "mean", "cls", "max", "none"] | None = Field(
        None, description="how tokens are pooled; by default as the folder's sentence-transformers files say"
    )


class PackageEmbedding(Pass):
    """Adds the output sentence_embedding, and the description that sessions read.

    The package runs in plain onnxruntime: its inputs are input_ids and attention_mask, with padding on either side.
    """

    name = "package-embedding"
    summary = "adds the output sentence_embedding: hidden states pooled as the model's folder says"
    revision = 2
    Config = PackageEmbeddingConfig
    requires = Form("onnx", {"packaged": "no"})
    ensures = Form("onnx", {"packaged": "yes"})
    whole = True  # a model of several parts is an error: it must not be packaged part by part

    def run(self, model: Model, config: PackageEmbeddingConfig, context: Context) -> Model:
        from drupe_checkpoints import sentence_modules
        from drupe_embedding import SENTENCE_EMBEDDING, EmbeddingDescription, describe_embedding
        from drupe_feature_extraction.layers import layers_of, quantize_layers
        from drupe_feature_extraction.pooling_nodes import add_pooling, hidden_size

        package: OnnxPackage = model.payload
        graph = package.component.graph
        if any(value.name == SENTENCE_EMBEDDING for value in graph.outputs):
            return model
        modules, width = sentence_modules(package.files), hidden_size(graph)
        _refuse_misfit(modules, width, package.files)
        modes, notices = _chosen(config, modules, package.files)
        if modes:
            quantized = model.facts.get("weights") == "quantized"
            layers = layers_of(modules, width * len(modes), package.files, None if quantized else _stored(package))
            add_pooling(package.component, modes, layers, normalized=modules.normalized)
            if quantized:
                quantize_layers(package.component, layers, context.target)
        for each in modules.dense:  # the graph holds the weights now
            package.files.pop(each.weights_file, None)
        lengths = [each for each in (modules.max_length, package.context_length) if each is not None]
        describe_embedding(
            package.component,
            EmbeddingDescription(
                modes, modules.normalized, min(lengths, default=None), modules.prompts, modules.default_prompt
            ),
        )
        return model.noticed(*notices)


def _stored(package: OnnxPackage) -> ir.DataType:
    """The type in which layers after pooling are stored where nothing is quantized: that of the graph's numbers."""
    from drupe_onnx import ir

    half = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
    return half.get(package.decoder.activations if package.decoder else "", ir.DataType.FLOAT)


def _refuse_misfit(modules: SentenceModules, width: int, files: Mapping[str, Path | bytes]) -> None:
    """Raise ModelError where the folder's pooling is for hidden states of another size."""
    if modules.width is not None and modules.width != width:
        said = files[modules.pooling_file]
        raise ModelError(
            f"{modules.pooling_file} is for hidden states of {modules.width} values, but those of the model have "
            f"{width}",
            where=said if isinstance(said, Path) else modules.pooling_file,
            cure="check that the files of sentence-transformers belong to this model",
        )


def _chosen(
    config: PackageEmbeddingConfig, modules: SentenceModules, files: Mapping[str, Path | bytes]
) -> tuple[tuple[str, ...], tuple[Notice, ...]]:
    """The modes of pooling, and what a user should know of the choice."""
    if config.pooling is not None:
        return ((POOLINGS[config.pooling],) if config.pooling in POOLINGS else ()), ()
    if modules.modes:
        return modules.modes, ()
    if token := appended_token(files):
        what = (
            f"no file says how tokens are pooled; the tokenizer puts {token} behind each text, so the embedding is the "
            "hidden state of this last token, not normalized"
        )
        return ("lasttoken",), (Notice("pooling", "chosen", what, f"--pooling overrides it: {AS_THE_CARD_SAYS}"),)
    what = "no file says how tokens are pooled: the package gives last_hidden_state and no sentence_embedding"
    return (), (Notice("pooling", "left out", what, AS_THE_CARD_SAYS),)


def appended_token(files: Mapping[str, Path | bytes]) -> str | None:
    """The token that the tokenizer puts behind each text; None where it puts none there."""
    from drupe_tokenization import TokenizerDocument

    content = files.get(TOKENIZER)
    if content is None:
        return None
    document = TokenizerDocument.read(content if isinstance(content, bytes) else content.read_bytes())
    for step in document.steps("post_processor"):
        if step.get("type") == "TemplateProcessing" and (pieces := step.get("single")):
            last: Any = pieces[-1].get("SpecialToken")
            if last is not None:
                return str(last.get("id"))
    return None
