"""Llama whose tokens read later ones, too (`llama_bidirec`): NVIDIA's llama-embed-nemotron, llama-nemotron-embed."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.directions import both_ways
from drupe_model_builder.configuration.reading import without_effect
from drupe_model_builder.families.llama import llama

OF_TRAINING = ("pooling", "temperature")
"""Keys of its own that change no hidden state. How tokens are pooled is in the files of sentence-transformers, too."""


def llama_bidirec(config: Configuration) -> Decoder:
    without_effect(config, *OF_TRAINING)
    return both_ways(llama(config))
