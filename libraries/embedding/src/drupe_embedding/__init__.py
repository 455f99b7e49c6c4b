"""drupe-embedding: sessions that give embeddings of texts, and how these are pooled. Importing loads no numpy."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
