"""drupe-layerwise: runs a decoder's graph block by block, with the weights of one block at a time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
