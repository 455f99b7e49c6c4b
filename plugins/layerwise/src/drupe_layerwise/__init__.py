"""drupe-layerwise: runs a decoder's graph block by block, with the weights of one block at a time."""

from drupe_layerwise.distribution import Distribution
from drupe_layerwise.finding import mark_blocks
from drupe_layerwise.runner import LayerByLayer, Logits
from drupe_layerwise.segments import Segment, hidden_states

__all__ = ["Distribution", "LayerByLayer", "Logits", "Segment", "hidden_states", "mark_blocks"]
