"""The entry module of drupe-mixed-precision: its passes."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref("allocate-bits", "drupe_mixed_precision.allocate_bits:AllocateBits",
            "gives each matrix the bits and block size that lose the least quality within a budget of bytes"),
        Ref("measure-sensitivity", "drupe_mixed_precision.measure_sensitivity:MeasureSensitivity",
            "measures the KL divergence that each matrix costs when only this matrix is quantized"),
    ]  # fmt: skip
