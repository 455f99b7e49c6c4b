"""The layers after pooling: their weights for the graph, and their quantization.

In a quantized package they have 8 bits. The error of that is a small part of the error that the rest of the model has
at 4 bits, and they take half the bytes of float16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from drupe.api import ModelError, Target, replace
from drupe_checkpoints import Dense, SentenceModules, dense_weights, sentence_modules
from drupe_embedding import DenseLayer
from drupe_feature_extraction.pooling_nodes import Layer, bias_name, weight_name
from drupe_nbits import Rewriter, candidates, find_sites, first_served, method_for
from drupe_onnx import Files, OnnxPackage, as_type, capabilities_of, expression_of, ir, remove_unused

BITS = 8
WIDE = ir.DataType.FLOAT


def layers_of(
    modules: SentenceModules, width: int, files: Mapping[str, Path | bytes], stored: ir.DataType | None
) -> list[Layer]:
    """The layers that the files describe. width: the values of a pooled embedding.

    stored: the type to store them in; None for the files' own. Raises ModelError where sizes do not fit.
    """
    found = []
    for each in modules.dense:
        if each.inputs != width:
            place = files[each.file]
            raise ModelError(
                f"{each.file} is for embeddings of {each.inputs} values, but those before it have {width}",
                where=place if isinstance(place, Path) else each.file,
                cure="check that the files of sentence-transformers belong to this model, and leave --pooling out",
            )
        weights = dense_weights(files, each)
        matrix = weights.matrix if stored is None else as_type(weights.matrix, stored)
        bias = None if weights.bias is None else as_type(weights.bias, WIDE)
        found.append(Layer(_name(each), matrix, bias, each.activation))
        width = each.outputs
    return found


def quantize_layers(model: ir.Model, layers: Sequence[Layer], target: Target) -> None:
    """Quantize the matrices of the layers, which are in the model's graph, where the target supports it."""
    capabilities, names = capabilities_of(target), {weight_name(layer.name) for layer in layers}
    rewriter = Rewriter(model.graph, capabilities)
    for site in find_sites(model.graph):
        if site.name in names:
            schemes = candidates(site, BITS, False, None, capabilities)
            if scheme := first_served(site, schemes, capabilities):
                rewriter.rewrite(site, replace(scheme, method=method_for(BITS, scheme.method)))
    remove_unused(model)


def layers_in_numpy(package: OnnxPackage) -> list[DenseLayer]:
    """The layers in the graph of a package that is not quantized, with their weights read."""
    initializers = package.component.graph.initializers
    found = []
    with Files() as files:
        for each in sentence_modules(package.files).dense:
            matrix, bias = (
                expression_of(initializers[name]) if name in initializers else None
                for name in (weight_name(_name(each)), bias_name(_name(each)))
            )
            assert matrix is not None
            found.append(
                DenseLayer(matrix.value(files).T, None if bias is None else bias.value(files), each.activation)
            )
    return found


def _name(dense: Dense) -> str:
    """The name of a layer in the graph: that of its folder."""
    return Path(dense.file).parent.name
