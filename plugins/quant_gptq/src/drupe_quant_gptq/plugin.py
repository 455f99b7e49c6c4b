"""The entry module of drupe-quant-gptq: its passes."""

from drupe.api import Ref, hookimpl


@hookimpl
def drupe_passes() -> list[Ref]:
    return [
        Ref("quantize-gptq", "drupe_quant_gptq.quantize_gptq:QuantizeGptq",
            "quantizes weights by GPTQ, block by block, calibrated on a text"),
        Ref("weigh-channels", "drupe_quant_gptq.weigh_channels:WeighChannels",
            "measures how much each input channel of a matrix counts, for the error search"),
    ]  # fmt: skip
