"""drupe-tokenization: tokenizers and chat templates as transformers reads them. Importing it loads no tokenizers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
