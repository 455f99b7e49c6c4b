"""Shared: what all layers of one graph have in common."""

from __future__ import annotations

from drupe.api import Record
from drupe_model_builder.parts.chunks import ChunkMasks
from drupe_model_builder.parts.distance import DistanceBiases
from drupe_model_builder.parts.state import States
from drupe_model_builder.parts.window import WindowBiases
from drupe_model_builder.rotary_tables import RotaryTables
from drupe_model_builder.sequence_lengths import Lengths


class Shared(Record):
    """lengths: of the rows of the batch. states: the caches. tables: of the rotary embeddings. biases: by distance.

    windows: biases that shut out the tokens outside a window. chunks: the same for attention within chunks.
    """

    lengths: Lengths
    states: States
    tables: RotaryTables
    biases: DistanceBiases
    windows: WindowBiases
    chunks: ChunkMasks
