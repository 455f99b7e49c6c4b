"""OnnxPackage: graphs whose weights are expressions, and the files that go beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from drupe.api import ModelError

if TYPE_CHECKING:
    from drupe_onnx import ir

DECODER_KEY = "drupe.decoder"
FLOAT_MATRICES = "drupe.float_matrices"
"""The key of a model's metadata that lists, as JSON, the weights that a quantizer has left as they were."""
ROLE = "drupe.role"
"""The key of a node's metadata that says what the node does."""
BLOCK = "drupe.block"
"""The key of a node's metadata that holds the number of the decoder block that the node is in."""
LAST_TOKEN = "last-token"
"""The role of nodes that drop the logits of all but the last token."""


@dataclass(frozen=True)
class DecoderDescription:
    """What a runtime's configuration has to know of a decoder.

    model_type: as in the checkpoint's config.json. activations, kv_dtype: element types ("float32").
    bos, eos, pad: token numbers.
    """

    model_type: str
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    activations: str
    kv_dtype: str
    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None


@dataclass
class OnnxPackage:
    """components: a graph by name, "model" for a decoder; it is written to "model.onnx" and "model.onnx.data".

    files: what lies beside them, by name (with "/" for one in a folder): a file to copy, or its contents.
    """

    components: dict[str, ir.Model]
    files: dict[str, Path | bytes] = field(default_factory=dict)

    def clone(self) -> OnnxPackage:
        """A copy whose graphs and files may be changed; the weights are shared."""
        return OnnxPackage({name: model.clone() for name, model in self.components.items()}, dict(self.files))

    @property
    def decoder(self) -> DecoderDescription | None:
        """The description in the metadata of "model", where it is a decoder."""
        text = self.components["model"].metadata_props.get(DECODER_KEY) if "model" in self.components else None
        return None if text is None else decoder_from(text)

    @decoder.setter
    def decoder(self, description: DecoderDescription) -> None:
        self.components["model"].metadata_props[DECODER_KEY] = json.dumps(asdict(description))

    @property
    def context_length(self) -> int | None:
        """How many tokens a sequence may have; None where nothing says it."""
        return self.decoder.context_length if self.decoder else None


def decoder_from(text: str) -> DecoderDescription:
    """The description in a graph's metadata; what a later version has added to it is left out."""
    try:
        document = json.loads(text)
        known = {each.name for each in fields(DecoderDescription)}
        values = {name: value for name, value in document.items() if name in known}
        return DecoderDescription(**{**values, "eos": tuple(values.get("eos", ()))})
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"the graph's description of its decoder ({DECODER_KEY}) is broken") from error


def graphs_of(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph and every graph inside it."""
    yield model.graph
    yield from model.graph.subgraphs()


def initializers_of(model: ir.Model) -> Iterator[ir.Value]:
    """Every initializer, those of inner graphs included, in the order of the graphs."""
    for graph in graphs_of(model):
        yield from graph.initializers.values()
