"""drupe-onnx: lazy ONNX graphs. Each public name is loaded when it is first used, so importing this costs nothing."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
