"""Llama 3.2 Vision (its text model): Llama without the layers that attend to images, which text alone does not run."""

from __future__ import annotations

from drupe.api import replace
from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.block import Block, Sizes, decoder
from drupe_model_builder.configuration.reading import activation, rotary_of, sizes_of
from drupe_model_builder.parts.step import Layer

SPARE = 8
"""Rows of the embedding behind those of the vocabulary, for images."""
USUAL = [3, 8, 13, 18, 23, 28, 33, 38]
"""The layers that attend to images, where config.json does not say it."""


def mllama_text_model(config: Configuration) -> Decoder:
    sizes = sizes_of(config, context_length=131072, kv_heads=8, epsilon=1e-5)
    rotary, silu = rotary_of(config, sizes, theta=500_000.0), activation(config)
    kept, to_images = _layers(config, sizes)

    def layer(numbered: Block) -> Layer:
        """Caches are numbered by the layers that are kept, and tensors by all."""
        name = numbered.names.layer.format(kept[numbered.number])
        block = replace(numbered, names=replace(numbered.names, layer=name))
        return block.pre_norm(block.attention(rotary), block.gated_mlp(silu))

    ignored = (rf"model\.layers\.({'|'.join(map(str, to_images))})\..*",) if to_images else ()
    return decoder(config, replace(sizes, layers=len(kept)), layer, embedding={"spare": SPARE}, ignored=ignored)


def _layers(config: Configuration, sizes: Sizes) -> tuple[list[int], list[int]]:
    """The numbers of the layers that text runs, and of those that attend to images."""
    key = "cross_attention_layers"
    usual = [number for number in USUAL if number < sizes.layers]
    listed = usual if config.get(key) is None else config[key]
    if not isinstance(listed, list) or any(
        isinstance(each, bool) or not isinstance(each, int) or not 0 <= each < sizes.layers for each in listed
    ):
        raise config.mistake(f"{key} wants a list of numbers of layers below {sizes.layers}")
    kept = [number for number in range(sizes.layers) if number not in listed]
    if not kept:
        raise config.mistake(f"{key} leaves no layer that text runs")
    return kept, sorted(set(listed))
