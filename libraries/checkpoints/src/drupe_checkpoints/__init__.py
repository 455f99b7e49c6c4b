"""Checkpoints as transformers saves them: where they are, what their configuration says, which files go with them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
