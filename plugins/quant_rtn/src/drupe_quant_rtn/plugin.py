"""The entry module of drupe-quant-rtn: its passes."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref("quantize-weights", "drupe_quant_rtn.quantize_weights:QuantizeWeights",
            "quantizes weights in blocks to 2, 4 or 8 bits, without data"),
        Ref("repack-weights", "drupe_quant_rtn.repack_weights:RepackWeights",
            "takes over weights that are already quantized in the checkpoint"),
    ]  # fmt: skip
