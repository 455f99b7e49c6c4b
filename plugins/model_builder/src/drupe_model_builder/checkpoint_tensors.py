"""Checking that a checkpoint's tensors are those of its decoder, before any of them is used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from drupe.api import ModelError, Notice, Record, field
from drupe_checkpoints import Checkpoint
from drupe_checkpoints.wording import listed
from drupe_model_builder.composition import Decoder
from drupe_model_builder.merged_experts import take_apart
from drupe_model_builder.other_names import settle
from drupe_model_builder.precision import READABLE
from drupe_model_builder.tensor_names import by_family
from drupe_model_builder.tied_head import settled_head
from drupe_model_builder.towers import modules_of, notice_of_towers, without_towers
from drupe_onnx import Expression, Files, element_name

# Buffers that older versions of transformers saved although they follow from the configuration.
DERIVED = r".*\.(rotary_emb\.inv_freq|rotary_emb\.(cos|sin)_cached|self_attn\.(masked_)?bias)"
# Factors for rounding activations and caches, which are not rounded here.
OF_ACTIVATIONS = (r".*\.(input|output|activation|k|q|v)_scale",)
SHOWN = 5


class DecoderWeights(Record):
    """A checkpoint's tensors by the decoder's names, and the decoder that they fit. notices: on what was decided.

    left_out: the modules of the checkpoint that the decoder does not have, as their names begin in the files.
    stored: the checkpoint's own names of tensors that are the decoder's as they are stored, by the decoder's.
    """

    tensors: Mapping[str, Expression]
    decoder: Decoder
    notices: tuple[Notice, ...] = ()
    left_out: tuple[str, ...] = ()
    stored: Mapping[str, str] = field(default_factory=dict)


def weights_of(checkpoint: Checkpoint, decoder: Decoder) -> DecoderWeights:
    """The decoder's tensors. Raises ModelError for missing or extra ones, wrong shapes, and integers."""
    stored, outside = without_towers(checkpoint, checkpoint.tensors(), decoder)
    named = by_family(checkpoint, stored, decoder)
    names = dict(zip(named, stored, strict=True))
    settle(named, decoder)
    take_apart(checkpoint, named, decoder)
    held, decoder, notices = settled_head(named, decoder)
    wanted = decoder.tensors()
    held = {**_zeros(wanted, held, decoder), **held}
    _refuse_missing(checkpoint, wanted, held, decoder)
    for name, shape in wanted.items():
        _refuse_misfit(checkpoint, name, shape, held[name])
    unread = (*decoder.ignored, *(OF_ACTIVATIONS if checkpoint.packing is not None else ()))
    extra = [name for name in held if name not in wanted and not _matches(name, (DERIVED, *unread))]
    if checkpoint.packing is not None:
        extra = [name for name in extra if not _adds_nothing(name, held[name])]
    if extra:
        raise ModelError(
            f"the checkpoint holds {_count(extra)} that a {decoder.model_type} model with this config.json lacks: "
            + listed(extra, SHOWN),
            where=checkpoint.folder,
            cure="check config.json: without these weights the model would compute something else",
        )
    towers = {name: tensor for name, tensor in outside.items() if not _matches(name, (DERIVED, *unread))}
    if towers:
        notices = (*notices, notice_of_towers(checkpoint, towers, modules_of(towers, stored)))
    ignored = [names.get(name, name) for name in held if name not in wanted and _matches(name, unread)]
    kept = [name for name in stored if name not in ignored]
    own = {id(tensor): name for name, tensor in stored.items()}
    as_stored = {name: own[id(tensor)] for name, tensor in held.items() if id(tensor) in own}
    return DecoderWeights(held, decoder, notices, tuple(modules_of([*outside, *ignored], kept)), as_stored)


def _zeros(
    wanted: Mapping[str, tuple[int, ...]], held: Mapping[str, Expression], decoder: Decoder
) -> dict[str, Expression]:
    """Zeros for tensors that are missing and may be."""
    import numpy as np

    from drupe_onnx import Array

    missing = (name for name in wanted if name not in held)
    allowed = [name for name in missing if any(re.fullmatch(pattern, name) for pattern in decoder.zeros)]
    return {name: Array(np.zeros(wanted[name], np.float32)) for name in allowed}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a tensor takes no part: it follows from the configuration, or is left out."""
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _adds_nothing(name: str, tensor: Expression) -> bool:
    """Whether a tensor is a bias of zeros: AutoGPTQ gives each linear layer one, also where the model has none."""
    if not name.endswith(".bias") or len(tensor.shape) != 1:
        return False
    with Files() as files:
        return not tensor.value(files).any()


def _refuse_missing(
    checkpoint: Checkpoint, wanted: Iterable[str], held: Mapping[str, Expression], decoder: Decoder
) -> None:
    missing = [name for name in wanted if name not in held]
    if not missing:
        return
    cure = "check config.json against the safetensors files; download the checkpoint again if one is incomplete"
    if decoder.head is not None and missing == [decoder.head.matrix]:
        cure = 'set "tie_word_embeddings": true in config.json if the head shares the embedding\'s weights'
    elif len(missing) == len(list(wanted)):
        cure = f"save the model itself: the files hold other names, such as {next(iter(held), 'none')}"
    raise ModelError(
        f"the checkpoint lacks {_count(missing)} that config.json requires: {listed(missing, SHOWN)}",
        where=checkpoint.folder,
        cure=cure,
    )


def _refuse_misfit(checkpoint: Checkpoint, name: str, shape: tuple[int, ...], tensor: Expression) -> None:
    if tuple(tensor.shape) != shape:
        raise ModelError(
            f"the tensor {name} has the shape {list(tensor.shape)}, but config.json requires {list(shape)}",
            where=checkpoint.folder,
            cure="check that config.json belongs to these files",
        )
    if tensor.dtype not in READABLE:
        raise ModelError(
            f"the tensor {name} holds {element_name(tensor.dtype)}, not floating-point weights",
            where=checkpoint.folder,
            cure="use the checkpoint in float16, bfloat16 or float32",
        )


def _count(names: list[str]) -> str:
    return "a tensor" if len(names) == 1 else f"{len(names)} tensors"
