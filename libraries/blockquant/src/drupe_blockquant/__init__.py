"""Block quantization numerics and packing, in the layout of ONNX Runtime's MatMulNBits.

Importing this package is cheap: `Scheme` and the counting of bytes need neither numpy nor numba. The numerics are
imported when one of their names is first used. numba is imported only to compile kernels, once on a machine.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
