"""The task `text-generation`: decoders that continue a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from drupe.api import Model, RuntimeMissing, Session, Target, Task

PROMPT = "The quick brown fox"
NEW_TOKENS = 8
SAMPLE_TOKENS = 8


class TextGeneration(Task):
    """Decoders with key-value caches, in packages of one part."""

    name = "text-generation"
    summary = "continues a text, or answers in a conversation"
    evaluator = "quality"
    offers: ClassVar[Mapping[str, str]] = {
        "generate": "continues a prompt, and gives the whole text",
        "stream": "continues a prompt, and gives the text as it comes",
        "conversation": "makes a prompt of messages with the model's chat template",
    }

    def samples(
        self, model: Model, target: Target, seed: int = 0, sizes: Mapping[str, int] | None = None
    ) -> Mapping[str, Mapping[str, Any]]:
        """Random tokens, by default [1, 8], with mask, positions and empty caches, for models of the kind `onnx`."""
        import numpy

        from drupe_decoding import cache_sizes, decoder_ports, input_array, port_of, token_shape, vocabulary_size
        from drupe_onnx import package_of

        package = package_of(model)
        graph = package.component.graph
        vocabulary = vocabulary_size(decoder_ports(graph), package.decoder)
        tokens = numpy.random.default_rng(seed).integers(0, vocabulary, token_shape(sizes, SAMPLE_TOKENS))
        inputs = {
            value.name or "": input_array(port_of(value), tokens, sizes=cache_sizes(value, package.decoder))
            for value in graph.inputs
            if not value.is_initializer()
        }
        return {next(iter(model.parts)): inputs}

    def check(self, session: Session, model: Model) -> str:
        """Continue a prompt greedily; says with what. Raises CheckFailed where a logit is not finite."""
        from drupe_decoding import Generation, TextSession

        if not isinstance(session, TextSession):  # another runtime may do more with the package
            raise RuntimeMissing("the runtime opens the package, and does not generate text with it")
        text = session.generate(PROMPT, Generation(max_new_tokens=NEW_TOKENS, validate=True))
        return f'continues "{PROMPT}" with "{text}"'
