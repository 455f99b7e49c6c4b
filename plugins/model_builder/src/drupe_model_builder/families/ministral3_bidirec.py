"""Ministral 3 whose tokens read later ones, too (`ministral3_bidirec`): models of embeddings trained with NeMo."""

from __future__ import annotations

from drupe_checkpoints import Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.configuration.directions import both_ways
from drupe_model_builder.configuration.reading import without_effect
from drupe_model_builder.families.llama_bidirec import OF_TRAINING
from drupe_model_builder.families.ministral3 import ministral3


def ministral3_bidirec(config: Configuration) -> Decoder:
    without_effect(config, *OF_TRAINING)
    return both_ways(ministral3(config))
