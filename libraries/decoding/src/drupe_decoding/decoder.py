"""Decoder: runs a package's graph for the logits of every token, a few positions at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from drupe.api import Context, Model, ModelError, Session
from drupe_decoding.feeding import DecoderFeed, FeedState
from drupe_decoding.graphs import cache_sizes, decoder_ports, vocabulary_size
from drupe_decoding.ports import DecoderPorts
from drupe_onnx import OnnxPackage, package_of, write_twin


class Decoder:
    """An open decoder with the key-value caches of the tokens that it has read. A context manager.

    vocabulary: how many logits a token has.
    """

    def __init__(self, model: Model, name: str, context: Context) -> None:
        """Open the model's twin with all logits, which is written to the folder `name` of the context's scratch."""
        twin = write_twin(model, context.scratch / name)
        assert isinstance(twin.payload, OnnxPackage)
        self._feed, self._ports = _feed_of(twin.payload)
        self.vocabulary = vocabulary_size(self._ports, twin.payload.decoder)
        self._session: Session = context.open(twin)

    def reset(self) -> None:
        """Forget all tokens."""
        self._feed.reset()

    def mark(self) -> FeedState:
        """The place after the tokens read so far, to come back to."""
        return self._feed.state

    def back_to(self, place: FeedState) -> None:
        """Forget the tokens read since a place was marked."""
        self._feed.state = place

    def logits(self, tokens: Sequence[int]) -> NDArray[Any]:
        """Read further `tokens`; returns the logits of each: [tokens, vocabulary]."""
        results = self._session.run(self._feed.step(tokens), self._ports.outputs)
        self._feed.keep(results)
        logits: NDArray[Any] = results[self._ports.logits.name][0]
        if len(logits) != len(tokens):
            raise ModelError(
                "the graph gives only the last token's logits, and does not mark the nodes that drop the others",
                cure="make the package again with --all-logits",
            )
        return logits

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def context_length(model: Model) -> int:
    """How many tokens a package's context holds; a large number where it does not say."""
    return package_of(model).context_length or 1 << 30


def _feed_of(package: OnnxPackage) -> tuple[DecoderFeed, DecoderPorts]:
    """The DecoderFeed of the package's graph. Raises ModelError for a graph that is not a decoder."""
    graph = package.component.graph
    ports = decoder_ports(graph)
    first = next(value for value in graph.inputs if value.name == ports.caches[0].past.name)
    return DecoderFeed(ports, cache_sizes(first, package.decoder)), ports
