"""Adapters of a checkpoint: what to know of them, the tensors with them, and what they change in config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from drupe.api import Notice, counted, replace
from drupe_checkpoints.adapters.configuration import unknown_keys
from drupe_checkpoints.adapters.merging import Base, changes_tied, merged, places_in, unties
from drupe_checkpoints.adapters.reference import AdapterReference
from drupe_checkpoints.adapters.shared_blocks import of_uses, unshared, with_own_blocks
from drupe_checkpoints.adapters.switched import switchable, switched_notice
from drupe_checkpoints.configuration import Configuration
from drupe_checkpoints.tasks import TEXT
from drupe_checkpoints.tokenizer.settings import TOKENIZER

if TYPE_CHECKING:
    from drupe_checkpoints.adapters.tensors import AdapterTensors
    from drupe_checkpoints.checkpoint import Checkpoint
    from drupe_onnx import Expression

TIES = "tie_word_embeddings"
Kind = TypeVar("Kind", bound="Checkpoint")


def with_adapters(checkpoint: Kind, adapters: tuple[AdapterReference, ...]) -> Kind:
    """The checkpoint with adapters. Their configurations and headers are read. Raises ModelError."""
    found = replace(checkpoint, adapters=adapters)
    config = checkpoint.config
    if any(map(unties, found.adapter_tensors)):
        config = config.with_values({TIES: False})
    config = with_own_blocks(config, [*found.adapter_tensors, *map(switchable, checkpoint.switched)])
    return found if config is checkpoint.config else replace(found, config=config)  # `found` knows what it has read


def with_changes(checkpoint: Checkpoint, tensors: Mapping[str, Expression]) -> Mapping[str, Expression]:
    """A checkpoint's tensors, with its adapters merged into them.

    Raises ModelError for an adapter that is for another base model, or that is beside this one and cannot be switched.
    """
    own = unshared(checkpoint.config, tensors)
    base = Base.of(own, checkpoint.model_type, has_head=checkpoint.task == TEXT)
    for each in checkpoint.switched:
        places_in(base, of_uses(checkpoint.config, switchable(each)))
    return merged(base, [of_uses(checkpoint.config, each) for each in checkpoint.adapter_tensors])


def adapter_notices(checkpoint: Checkpoint) -> Iterator[Notice]:
    """What is merged, and what a user may not expect of it."""
    for adapter in checkpoint.adapter_tensors:
        yield _merged(adapter)
        if unknown := unknown_keys(adapter.config.config):
            what = f"nobody here knows {unknown} in the adapter's configuration; the adapter is merged without it"
            yield Notice("adapter_config.json", "has no effect", what)
        if checkpoint.config.flag(TIES, False) and changes_tied(adapter) and not adapter.config.ties_weights:
            yield Notice(
                "adapter",
                "merged",
                "the embedding and the head are one matrix, and the adapter adds to one of them: both change, as with "
                "peft's merge_and_unload()",
                "train with ensure_weight_tying, or on a base model whose head is a matrix of its own",
            )
        yield from _other_tokenizer(checkpoint, adapter.reference)
    if checkpoint.adapters and checkpoint.is_packed:
        yield Notice(
            "adapter",
            "merged",
            "the base model's weights are quantized: the matrices that the adapter changes are merged in floating "
            "point, and quantized again",
            "merge the adapter into the base model in floating point for the smallest loss",
        )
    yield from _beside(checkpoint)
    yield from _unshared(checkpoint)


def _beside(checkpoint: Checkpoint) -> Iterator[Notice]:
    """What is to be known of the adapters that stay beside the base model."""
    for adapter in checkpoint.switched:
        tensors = switchable(adapter)
        yield switched_notice(adapter, tensors)
        yield from _other_tokenizer(checkpoint, tensors.reference)


def _unshared(checkpoint: Checkpoint) -> Iterator[Notice]:
    """What is to be known of an adapter that changes each use of a shared block in its own way."""
    adapters = [*checkpoint.adapter_tensors, *map(switchable, checkpoint.switched)]
    stated = Configuration.read(checkpoint.config.path)
    if with_own_blocks(stated, adapters) is not stated:
        yield Notice(
            "adapter",
            "merged" if checkpoint.adapters else "switched",
            "the adapter changes each use of a shared block in its own way, so each use has matrices of its own where "
            "they differ; peft's merge_and_unload() adds all changes to the one that they share, which was not trained",
        )


def _merged(adapter: AdapterTensors) -> Notice:
    reference, changes = adapter.reference, len(adapter.changes)
    parts = [f"adds to {counted(changes, 'module')}"] if changes else []
    parts += [f"replaces {counted(len(adapter.whole), 'tensor')}"] if adapter.whole else []
    parts += ["replaces the rows of some tokens"] if adapter.tokens else []
    times = "" if reference.weight == 1 else f", times {reference.weight:g}"
    return Notice(
        "adapter", "merged", f"the {adapter.config.title} adapter {reference.folder} {', '.join(parts)}{times}"
    )


def _other_tokenizer(checkpoint: Checkpoint, reference: AdapterReference) -> Iterator[Notice]:
    mine, theirs = checkpoint.folder / TOKENIZER, reference.folder / TOKENIZER
    if mine.is_file() and theirs.is_file() and mine.read_bytes() != theirs.read_bytes():
        yield Notice(
            "tokenizer",
            "left out",
            f"{theirs} differs from the base model's tokenizer, which is used",
            "copy the adapter's tokenizer files into a copy of the base model if the adapter was trained with them",
        )
