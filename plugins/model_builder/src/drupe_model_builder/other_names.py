"""Other forms of a checkpoint's tensors: transformers 5's own names, and convolutions as one or in pieces."""

from __future__ import annotations

import re

from drupe_model_builder.composition import Decoder
from drupe_model_builder.parts.convolution import Convolution
from drupe_model_builder.parts.gated_delta import GatedDelta
from drupe_onnx import Concat, Expression, RowRange


def settle(held: dict[str, Expression], decoder: Decoder) -> None:
    """Give tensors the names and places that the decoder knows. Others stay as they are."""
    _rename(held, decoder)
    for part in decoder.parts:
        if isinstance(part, GatedDelta) and len(part.convolution.pieces) > 1:
            _cut(held, part.convolution)


def _rename(held: dict[str, Expression], decoder: Decoder) -> None:
    """A tensor whose name the decoder lacks gets the one that its pattern gives, where the decoder has that.

    The name of a whole convolution, of which the decoder wants pieces, counts as well.
    """
    whole = (f"{part.convolution.name}.weight" for part in decoder.parts if isinstance(part, GatedDelta))
    wanted = {*decoder.tensors(), *whole} if decoder.aliases else set()
    for name in [name for name in held if name not in wanted]:
        for pattern, replacement in decoder.aliases:
            other = re.sub(pattern, replacement, name)
            if other != name and other in wanted and other not in held:
                held[other] = held.pop(name)
                break


def _cut(held: dict[str, Expression], part: Convolution) -> None:
    """The pieces of a convolution from the whole, or from pieces that were cut in other places.

    transformers 5.23 cuts OLMo Hybrid's into three equal pieces when it saves, whatever their widths.
    """
    names, merged = [name for name, _ in part.tensors()], f"{part.name}.weight"
    if merged in held:
        whole = held.pop(merged)
    elif all(name in held for name in names):
        whole = Concat(tuple(held[name] for name in names))
    else:
        return
    if tuple(whole.shape) != (part.channels, 1, part.kernel):
        return  # the pieces are refused for their shapes
    start = 0
    for name, (_, channels) in zip(names, part.pieces, strict=True):
        held[name] = RowRange(whole, start, start + channels)
        start += channels
