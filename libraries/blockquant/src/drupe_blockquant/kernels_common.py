"""What the compiled kernels share: how numba compiles them, and the numbers that they round with."""

from typing import Any

import numpy as np
from numba import njit

F32 = np.float32
I32 = np.int32
U32 = np.uint32

ZERO = F32(0)
ONE = F32(1)
# The largest float32 below a half: trunc(x + this) is round-half-away-from-zero for every x >= 0, where x + 0.5 is not
# (0.49999997 + 0.5 rounds to 1).
ALMOST_HALF = F32(0.49999997)
# 1.5 * 2^23: adding and subtracting it rounds to the nearest integer, ties to even, for |x| < 2^22.
MAGIC = F32(12582912.0)

# numpy's error model: a division by zero raises no exception, so no branch keeps a loop from being vectorised.
# These functions are not called from Python, so the wrappers for such calls, which take long to compile, are left out.
_options: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
strict = njit(**_options)
contracted = njit(fastmath={"contract"}, **_options)
