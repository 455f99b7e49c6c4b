"""drupe-decoding: sessions that write text, and the inputs of a decoder's graph. Importing it loads no numpy."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
