"""Text for calibration and evaluation: reading it, its fingerprint, and its tokens."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
