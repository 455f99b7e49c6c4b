"""The names of a checkpoint's tensors: which prefix the decoder has in them, and the names that its family uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn, TypeVar

from drupe.api import ModelError
from drupe_checkpoints import Checkpoint
from drupe_model_builder.composition import Decoder

WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Parts of names that torch.compile, FSDP and checkpointing of activations put anywhere; they stand for no module."""
# Tensors of an adapter that is not merged: peft's, beside the weights that it changes.
ADAPTER = re.compile(r"\.(lora_[A-Za-z_]+|base_layer|modules_to_save|original_module|ia3_l|hada_w\d_\w|oft_\w+)\.")

Tensor = TypeVar("Tensor")


def by_family(checkpoint: Checkpoint, held: Mapping[str, Tensor], decoder: Decoder) -> dict[str, Tensor]:
    """The tensors by the names that the family uses, where the decoder's have another prefix.

    Programs save a decoder as it lies in theirs: without "model.", inside a model for images ("language_model.model."),
    inside a wrapper of peft, torch.compile or FSDP. The prefix is what stands before the names that every decoder has.
    Tensors of no decoder keep their names. Raises ModelError where two decoders fit.
    """
    plain = without_wrappers(checkpoint, held)
    prefix = prefix_of(checkpoint, plain, decoder)
    base, head = decoder.base, decoder.head.matrix.removesuffix("weight") if decoder.head else ""
    if prefix is None or prefix == base:
        return _completed(plain, decoder)
    before_head = head_prefix_of(checkpoint, plain, head, prefix) if head else None

    def named(name: str) -> str:
        if before_head is not None and name.startswith(before_head + head):
            return name.removeprefix(before_head)
        return base + name.removeprefix(prefix) if name.startswith(prefix) else name

    return _completed({named(name): tensor for name, tensor in plain.items()}, decoder)


def _completed(held: Mapping[str, Tensor], decoder: Decoder) -> dict[str, Tensor]:
    """The tensors, of which single ones may have been saved with or without the decoder's own prefix."""
    wanted, base = decoder.tensors(), decoder.base
    found = dict(held)
    for name in [name for name in held if name not in wanted]:
        for other in (base + name, name.removeprefix(base)):
            if other in wanted and other not in found:
                found[other] = found.pop(name)
                break
    return found


def prefix_of(checkpoint: Checkpoint, held: Iterable[str], decoder: Decoder) -> str | None:
    """What stands before the names of the decoder's own tensors; None where nothing fits, which is an error later."""
    base = decoder.base
    own = [name.removeprefix(base) for name in decoder.tensors() if name.startswith(base)]
    mark = next(name for name, _ in decoder.layers[0].tensors()).removeprefix(base)
    names = set(held)
    found = [name.removesuffix(mark) for name in names if name == mark or name.endswith(f".{mark}")]
    lacking = {prefix: sum(prefix + name not in names for name in own) for prefix in found}
    complete = sorted(prefix for prefix, count in lacking.items() if count == min(lacking.values()))
    if len(complete) > 1:
        _refuse_several(checkpoint, "decoders", [f"{prefix}{mark}" for prefix in complete])
    return complete[0] if complete else None


def head_prefix_of(checkpoint: Checkpoint, held: Iterable[str], head: str, prefix: str) -> str | None:
    """What stands before the name of the head: a module that the decoder is in; None where there is no head."""
    names = [name for name in held if name.endswith(f"{head}weight")]
    found = {name.removesuffix(f"{head}weight") for name in names}
    fitting = sorted(each for each in found if prefix.startswith(each))
    if len(fitting) > 1:
        _refuse_several(checkpoint, "heads", [f"{each}{head}weight" for each in fitting])
    return fitting[0] if fitting else None


def without_wrappers(checkpoint: Checkpoint, held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by names without wrappers. Raises ModelError for two of one name, and for an adapter."""
    _refuse_adapter(checkpoint, held)
    found: dict[str, Tensor] = {}
    for name, tensor in held.items():
        plain = name
        for wrapper in WRAPPERS:
            plain = plain.replace(wrapper, "")
        if plain in found:
            _refuse_several(checkpoint, "tensors", [plain, name])
        found[plain] = tensor
    return found


def _refuse_adapter(checkpoint: Checkpoint, held: Iterable[str]) -> None:
    if names := [name for name in held if ADAPTER.search(name)]:
        raise ModelError(
            f"the weights hold an adapter that is not merged into the model: {names[0]}",
            where=checkpoint.folder,
            cure="merge it first: peft's merge_and_unload(), then save_pretrained()",
        )


def _refuse_several(checkpoint: Checkpoint, what: str, names: Sequence[str]) -> NoReturn:
    raise ModelError(
        f"the checkpoint holds several {what} that could be the model's: {', '.join(names)}",
        where=checkpoint.folder,
        cure="save the one that is meant alone, with save_pretrained()",
    )
