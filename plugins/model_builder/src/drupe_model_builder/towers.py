"""Towers: the parts of a model for images or sound that a package of its text part leaves out."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping

from drupe.api import Notice
from drupe_checkpoints import Checkpoint
from drupe_model_builder.composition import Decoder
from drupe_model_builder.tensor_names import head_prefix_of, prefix_of, without_wrappers
from drupe_onnx import Expression

MEGABYTE = 1_000_000
SHOWN = 4
ADAPTER = re.compile(r"\.lora_[AB]\.(audio|image|speech|vision)\.")
"""Tensors of an adapter that is applied only to images or sound. The weights beside it are those for text."""
WITH_ADAPTER = ".base_layer."
IN_THE_BASE = frozenset(
    {
        "audio_tower", "embed_tokens_extend", "image_newline", "mm_projector", "multi_modal_projector",
        "vision_embed_tokens", "vision_model", "vision_tower", "visual",
    }
)  # fmt: skip
"""Modules of images and sound that stand among the decoder's own in some checkpoints."""


def without_towers(
    checkpoint: Checkpoint, held: Mapping[str, Expression], decoder: Decoder
) -> tuple[Mapping[str, Expression], Mapping[str, Expression]]:
    """The tensors of a text part, and those of the parts beside it. A model for text alone has no others."""
    if checkpoint.whole is None:
        return held, {}
    adapters = {name: tensor for name, tensor in held.items() if ADAPTER.search(name)}
    held = {name.replace(WITH_ADAPTER, "."): tensor for name, tensor in held.items() if name not in adapters}
    plain = without_wrappers(checkpoint, held)
    prefix = prefix_of(checkpoint, plain, decoder)
    head = decoder.head.matrix.removesuffix("weight") if decoder.head else ""
    if prefix is None:
        return plain, adapters
    before_head = head_prefix_of(checkpoint, plain, head, prefix) if head else None

    def belongs(name: str) -> bool:
        if before_head is not None and name.startswith(before_head + head):
            return True
        return name.startswith(prefix) and name.removeprefix(prefix).partition(".")[0] not in IN_THE_BASE

    inside = {name: tensor for name, tensor in plain.items() if belongs(name)}
    return inside, {name: tensor for name, tensor in plain.items() if name not in inside} | adapters


def notice_of_towers(checkpoint: Checkpoint, outside: Mapping[str, Expression], modules: list[str]) -> Notice:
    """What a user should know of the parts that are left out. modules: their names."""
    whole = checkpoint.whole
    called = "" if whole is None else ", ".join(whole.texts("architectures")) or whole.text("model_type", "")
    size = sum(math.ceil(math.prod(each.shape) * each.dtype.bitwidth / 8) for each in outside.values())
    rest = f" and {len(modules) - SHOWN} more modules" if len(modules) > SHOWN else ""
    return Notice(
        "weights",
        "left out",
        f"{', '.join(modules[:SHOWN])}{rest} ({len(outside)} tensors, {size / MEGABYTE:,.1f} MB) are left out: Drupe "
        f"packages the text part of {called}",
        "give the package texts alone; images and sound need a program that runs the whole model",
    )


def modules_of(names: Iterable[str], others: Collection[str]) -> list[str]:
    """The shortest beginnings of `names`, in whole words between dots, that none of `others` begins with."""
    taken = {beginning for other in others for beginning in _beginnings(other)}
    found = (next((each for each in _beginnings(name) if each not in taken), name) for name in names)
    return list(dict.fromkeys(found))


def _beginnings(name: str) -> Iterable[str]:
    words = name.split(".")
    return (".".join(words[:count]) for count in range(1, len(words) + 1))
