"""The entry module of drupe-recover: the pass `recover-scales`, and the option that asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Option

SUMMARY = "trains scales and norms of a quantized model, block by block, towards its source"


@hookimpl
def drupe_passes() -> list[Ref]:
    return [Ref("recover-scales", "drupe_recover.recover_scales:RecoverScales", SUMMARY)]


@hookimpl
def drupe_options() -> list[Option]:
    from drupe.api import Option

    return [
        Option(
            "recover",
            "Train scales and norms of the quantized model towards its source, block by block; takes minutes to hours.",
            type=bool,
            group="Quantization",
            default="no",
            needs="--precision int4 and --quality fast, balanced or best",
        )
    ]
