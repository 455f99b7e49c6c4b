"""The stages of recipes that make ONNX packages, and the numerics that a provider asks of each stage.

| stage | numerics | meaning |
| --- | --- | --- |
| `import` | `weights` | the type that matrices are stored in; by default the source's own |
| | `activations` | the type that the graph computes in; by default the target's best |
| `checkpoint`, `quantize` | `bits` | of a weight |
| | `symmetric` | true: without zero points |
| | `block_size` | weights that share a scale; by default chosen for each matrix |

Types are "float32", "float16" and "bfloat16". The stage `train` is for passes that train a checkpoint. The stage
`checkpoint` is for passes that quantize a checkpoint before it is imported; its numerics say how weights will be
quantized. A provider that lowers or compiles adds its own stages and steps.
"""

from __future__ import annotations

from typing import Any, Literal

from drupe.api import Stage

FloatType = Literal["float32", "float16", "bfloat16"]


def float_stages(weights: FloatType, activations: FloatType) -> tuple[Stage, ...]:
    """The stages for a package whose weights are in floating point."""
    built = Stage("import", {"weights": weights, "activations": activations})
    return (Stage("train"), Stage("checkpoint"), built, Stage("fuse"), Stage("package"), Stage("tune"))


def quantized_stages(
    bits: int, *, activations: FloatType | None = None, symmetric: bool | None = None, block_size: int | None = None
) -> tuple[Stage, ...]:
    """The stages for a package whose weights are quantized in blocks. None leaves a value to the stage's claimant."""
    quantize = _given(bits=bits, symmetric=symmetric, block_size=block_size)
    return (
        Stage("train"),
        Stage("checkpoint", quantize),
        Stage("import", _given(activations=activations)),
        Stage("fuse"),
        Stage("prepare"),
        Stage("quantize", quantize),
        Stage("package"),
        Stage("tune"),
    )


def _given(**numerics: Any) -> dict[str, Any]:
    return {name: value for name, value in numerics.items() if value is not None}
