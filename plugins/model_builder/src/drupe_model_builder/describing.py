"""A composition in numbers and words: its sizes, what each layer is made of, and which layers are alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from drupe.api import counted
from drupe_model_builder.composition import Decoder
from drupe_model_builder.parts.activations import Xielu
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.borrowed_attention import BorrowedAttention
from drupe_model_builder.parts.ends import Head
from drupe_model_builder.parts.expert_attention import ExpertAttention
from drupe_model_builder.parts.experts import Experts
from drupe_model_builder.parts.gated_delta import GatedDelta
from drupe_model_builder.parts.gated_recurrence import GatedRecurrence
from drupe_model_builder.parts.latent_attention import LatentAttention
from drupe_model_builder.parts.laurel import Laurel
from drupe_model_builder.parts.layer_inputs import LayerInput
from drupe_model_builder.parts.lightning_attention import LightningAttention
from drupe_model_builder.parts.mamba1 import Mamba1
from drupe_model_builder.parts.mamba2 import Mamba2
from drupe_model_builder.parts.mlp import MLP
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.short_conv import ShortConv
from drupe_model_builder.parts.step import Branch, Layer, Part, Step

MOST_NAMED = 6
"""Numbers of layers that are named one by one."""
BOTH_WAYS = "in both directions"


def described(decoder: Decoder) -> dict[str, Any]:
    """What `drupe inspect` shows: the sizes, the embedding, the layers in groups that are alike, and the head.

    Each record has a `text` for a person, and numbers for a program.
    """
    embedding, groups = decoder.embedding, _alike(decoder.layers)
    return {
        **_sizes(decoder),
        "embedding": {
            "text": _embedding(decoder),
            "vocabulary": embedding.vocab_size,
            "hidden size": embedding.hidden_size,
            "factor": embedding.factor,
            "learned positions": embedding.position_count if isinstance(embedding.positions, str) else 0,
        },
        "layer groups": [
            {
                "label": _numbers(numbers),
                "text": text,
                "layers": numbers,
                "parts": [
                    _part_record(branch.part) for step in decoder.layers[numbers[0]].steps for branch in step.branches
                ],
            }
            for text, numbers in groups.items()
        ],
        "head": {"text": _head(decoder), **_head_record(decoder.head)},
    }


def _sizes(decoder: Decoder) -> dict[str, int]:
    """The sizes of the whole, and those of the first attention."""
    sizes = {"layers": len(decoder.layers), "hidden size": decoder.hidden_size}
    if decoder.attentions:
        first = decoder.attentions[0]
        sizes |= {
            "attention heads": first.heads,
            "key and value heads": first.kv_heads,
            "head size": first.head_dim,
        }
    return {**sizes, "vocabulary": decoder.vocab_size, "context length": decoder.context_length}


def _alike(layers: Sequence[Layer]) -> dict[str, list[int]]:
    """The numbers of the layers that are alike, by what they are in words."""
    groups: dict[str, list[int]] = {}
    for number, layer in enumerate(layers):
        groups.setdefault(_layer(layer), []).append(number)
    return groups


def _part_record(part: Part) -> dict[str, Any]:
    """The name of a part, and its sizes."""
    name, _ = PARTS[type(part)]
    sizes = {label: _at(part, path) for label, path in SIZES[type(part)].items()}
    return {"part": name, **{label: size for label, size in sizes.items() if size is not None}}


def _at(value: Any, path: str) -> Any:
    """What stands at a path of attributes; None where one of them is None, and the name of what is no plain value."""
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value if isinstance(value, int | float | str | None) else type(value).__name__.lower()


def _head_record(head: Head | None) -> dict[str, Any]:
    if head is None:
        return {"logits": False}
    return {
        "logits": True, "tied": head.tied, "bias": head.bias is not None, "factor": head.factor, "softcap": head.softcap
    }  # fmt: skip


def _embedding(decoder: Decoder) -> str:
    embedding = decoder.embedding
    ends = [f"{embedding.vocab_size:,} x {embedding.width:,}"]
    ends += [f"times {embedding.factor:g}"] if embedding.factor != 1.0 else []
    if embedding.positions is not None:
        ends.append("learned positions" if isinstance(embedding.positions, str) else "sinusoids of positions")
    ends += [_norm(embedding.norm)] if embedding.norm else []
    return ", ".join(ends)


def _head(decoder: Decoder) -> str:
    head = decoder.head
    if head is None:
        return f"{_norm(decoder.final_norm)}, none: the hidden states are the result"
    last = [_norm(decoder.final_norm), "the embedding's table" if head.tied else "a matrix of its own"]
    if head.layer is not None:
        last[1:1] = filter(None, (f"{head.layer.activation} layer".strip(), _norm(head.layer.norm)))
    last += ["bias"] if head.bias else []
    last += [f"times {head.factor:g}"] if head.factor != 1.0 else []
    last += [f"softcap {head.softcap:g}"] if head.softcap else []
    return ", ".join(last)


def _numbers(numbers: list[int]) -> str:
    """Some layers by their numbers: "layer 3", "layers 0 to 27", or the first of many."""
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"layers {numbers[0]} to {numbers[-1]}"
    shown = ", ".join(map(str, numbers[:MOST_NAMED]))
    return f"layers {shown}" + (f", ... ({len(numbers)})" if len(numbers) > MOST_NAMED else "")


def _layer(layer: Layer) -> str:
    steps = [_step(step) for step in layer.steps]
    if layer.altup is not None:
        steps += [f"{layer.altup.count} streams (AltUp)", _part(layer.altup.given)]
    return "; ".join(steps)


def _step(step: Step) -> str:
    branches = " beside ".join(map(_branch, step.branches))
    if step.aside is not None:
        shared = f"{_part(step.aside.attention)}, {_part(step.aside.mlp)}"
        branches = f"{branches} behind a shared block: {shared}"
    closing = f"{_norm(step.closing)} of the sum with the residual" if step.closing else ""
    return ", ".join(filter(None, (_norm(step.before), branches, closing)))


def _branch(branch: Branch) -> str:
    words = [_norm(branch.before)] if branch.before else []
    words.append(_part(branch.part))
    words += [_norm(branch.after)] if branch.after else []
    words += [f"times {branch.factor:g}"] if branch.factor != 1.0 else []
    words += [f"added {counted(branch.later, 'step')} later"] if branch.later else []
    return ", ".join(words)


def _part(part: Part) -> str:
    name, describe = PARTS[type(part)]
    return f"{name} ({', '.join(describe(part))})"


def _attention(part: Attention) -> Iterator[str]:
    yield f"{part.heads} heads of {part.head_dim}"
    if part.kv_heads != part.heads:
        yield f"{part.kv_heads} for keys and values"
    if part.value_dim is not None:
        yield f"{part.value_dim} for values"
    if part.rotary is None:
        yield "no rotation"
    else:
        whole = part.rotary.width == part.head_dim
        yield (
            ("neighbours rotated" if part.rotary.interleaved else "rotated")
            if whole
            else f"{part.rotary.width} rotated"
        )
    yield from _set(
        (part.both_ways, BOTH_WAYS),
        (part.window is not None, f"window {part.window}"),
        (part.chunk is not None, f"chunks of {part.chunk}"),
        (part.query_norm is not None, "norms of query and key"),
        (part.query.bias is not None, "biases"),
        (bool(part.softcap), f"softcap {part.softcap:g}"),
        (part.sinks is not None, "sinks"),
        (part.difference is not None, "the difference of two halves"),
        (part.key_bias is not None, "a bias of each key"),
        (part.query_scale is not None, "queries that grow with the position"),
    )


def _latent_attention(part: LatentAttention) -> Iterator[str]:
    yield f"{part.heads} heads of {part.key}"
    if part.value != part.key:
        yield f"{part.value} for values"
    if part.rotary is not None:
        yield f"{part.rotated} {'neighbours ' if part.rotary.interleaved else ''}rotated"
    yield f"a latent of {part.latent.size - part.rotated:,}"
    if part.query_latent is not None:
        yield f"one of {part.query_latent.size:,} for queries"
    yield from _set(
        (part.both_ways, BOTH_WAYS),
        (part.latent.bias is not None, "biases"),
        (part.query_scale is not None, "queries that grow with the position"),
    )


def _expert_attention(part: ExpertAttention) -> Iterator[str]:
    yield f"{part.heads} heads of {part.head_dim}"
    yield f"{part.kv_heads} for keys and values"
    yield f"queries of {part.router.chosen} of {counted(part.router.experts, 'expert')}"
    yield from _set((part.both_ways, BOTH_WAYS))


def _mlp(part: MLP) -> Iterator[str]:
    yield f"{part.up.size:,} wide"
    yield "xielu" if isinstance(part.activation, Xielu) else part.activation
    yield from _set(
        (part.gate is None, "without a gate"),
        (part.sparse_gate is not None, "a sparse gate"),
        (part.up.bias is not None, "biases"),
    )


def _experts(part: Experts) -> Iterator[str]:
    router = part.router
    yield f"{router.chosen} of {counted(router.experts, 'expert')}"
    yield f"{part.up.size:,} wide"
    if part.shared is not None:
        yield f"beside an MLP {part.shared.up.size:,} wide for all tokens"
    yield from _set(
        (router.score != "softmax", f"chosen by {router.score}"),
        (router.groups > 1, f"from {router.kept_groups} of {router.groups} groups"),
        (router.idle > 0, f"{router.idle} of them give their input back"),
        (part.gate is None, "without a gate"),
        (part.weighs_input, "weights on their input"),
        (bool(part.up.biases), "biases"),
    )


def _borrowed_attention(part: BorrowedAttention) -> Iterator[str]:
    yield f"{part.heads} heads of {part.source.head_dim}"
    yield f"keys and values of layer {part.source.layer}"
    yield from _set((part.both_ways, BOTH_WAYS), (part.window is not None, f"window {part.window}"))


def _short_convolution(part: ShortConv) -> Iterator[str]:
    yield f"{part.convolution.channels:,} channels"
    yield f"over {part.convolution.kernel} tokens"


def _gated_delta(part: GatedDelta) -> Iterator[str]:
    yield f"{part.value_heads} heads of {part.value_size}"
    if (part.key_heads, part.key_size) != (part.value_heads, part.value_size):
        yield f"{part.key_heads} of {part.key_size} for keys"
    yield f"convolution over {part.convolution.kernel} tokens"
    yield from _set((part.decay.size > part.value_heads, "a decay for each channel"))


def _gated_recurrence(part: GatedRecurrence) -> Iterator[str]:
    yield f"{part.channels:,} channels"
    yield f"gates of {counted(part.input_gate.blocks, 'block')}"
    yield f"convolution over {part.convolution.kernel} tokens"


def _lightning_attention(part: LightningAttention) -> Iterator[str]:
    yield f"{part.heads} heads of {part.head_dim}"


def _mamba2(part: Mamba2) -> Iterator[str]:
    yield f"{part.heads} heads of {part.head_dim}"
    yield f"states of {part.state_size}"
    yield from _set((part.groups > 1, f"{part.groups} groups"))
    yield f"convolution over {part.convolution.kernel} tokens"


def _mamba1(part: Mamba1) -> Iterator[str]:
    yield f"{part.channels:,} channels"
    yield f"states of {part.state_size}"
    yield f"convolution over {part.convolution.kernel} tokens"


def _laurel(part: Laurel) -> Iterator[str]:
    yield f"{part.inward.size:,} wide"


def _layer_input(part: LayerInput) -> Iterator[str]:
    yield f"{part.gate.size:,} wide"


PARTS: Mapping[type, tuple[str, Callable[[Any], Iterator[str]]]] = {
    Attention: ("attention", _attention),
    LatentAttention: ("latent attention", _latent_attention),
    BorrowedAttention: ("attention", _borrowed_attention),
    ExpertAttention: ("attention", _expert_attention),
    GatedDelta: ("gated delta", _gated_delta),
    GatedRecurrence: ("gated recurrence", _gated_recurrence),
    LightningAttention: ("lightning attention", _lightning_attention),
    Mamba1: ("Mamba", _mamba1),
    Mamba2: ("Mamba-2", _mamba2),
    ShortConv: ("short convolution", _short_convolution),
    MLP: ("MLP", _mlp),
    Experts: ("experts", _experts),
    Laurel: ("Laurel", _laurel),
    LayerInput: ("an input of the layer's own", _layer_input),
}
"""What each part is called, and what is said of it."""


SIZES: Mapping[type, Mapping[str, str]] = {
    Attention: {
        "heads": "heads", "key and value heads": "kv_heads", "head size": "head_dim", "value size": "value_dim",
        "rotated": "rotary.width", "window": "window", "both directions": "both_ways", "softcap": "softcap",
        "scale": "scale",
    },
    LatentAttention: {
        "heads": "heads", "head size": "key", "value size": "value", "rotated": "rotated",
        "query latent": "query_latent.size", "both directions": "both_ways",
    },
    BorrowedAttention: {
        "heads": "heads", "head size": "source.head_dim", "layer of keys and values": "source.layer",
        "window": "window", "both directions": "both_ways",
    },
    ExpertAttention: {
        "heads": "heads", "key and value heads": "kv_heads", "head size": "head_dim", "experts": "router.experts",
        "chosen": "router.chosen", "both directions": "both_ways",
    },
    GatedDelta: {
        "heads": "value_heads", "head size": "value_size", "key heads": "key_heads", "key size": "key_size",
        "convolution": "convolution.kernel",
    },
    GatedRecurrence: {"channels": "channels", "convolution": "convolution.kernel"},
    LightningAttention: {"heads": "heads", "head size": "head_dim"},
    Mamba1: {"channels": "channels", "state size": "state_size", "convolution": "convolution.kernel"},
    Mamba2: {
        "heads": "heads", "head size": "head_dim", "state size": "state_size", "groups": "groups",
        "convolution": "convolution.kernel",
    },
    ShortConv: {"channels": "convolution.channels", "convolution": "convolution.kernel"},
    MLP: {"size": "up.size", "activation": "activation"},
    Experts: {
        "experts": "router.experts", "chosen": "router.chosen", "size": "up.size", "shared size": "shared.up.size",
        "groups": "router.groups",
    },
    Laurel: {"size": "inward.size"},
    LayerInput: {"size": "gate.size"},
}  # fmt: skip
"""For each part: its sizes by label, and where they stand in it."""


def _set(*words: tuple[bool, str]) -> Iterable[str]:
    return (word for holds, word in words if holds)


def _norm(norm: Norm | None) -> str:
    if norm is None:
        return ""
    return "RMS norm" if norm.kind == "rms" else "LayerNorm"
