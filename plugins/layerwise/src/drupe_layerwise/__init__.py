"""drupe-layerwise: runs a decoder's graph block by block, with the weights of one block at a time."""

from drupe_layerwise.finding import mark_blocks
from drupe_layerwise.runner import LayerByLayer, Logits
from drupe_layerwise.segments import BLOCK, Segment

__all__ = ["BLOCK", "LayerByLayer", "Logits", "Segment", "mark_blocks"]
