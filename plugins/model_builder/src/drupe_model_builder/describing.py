"""A composition in words: what each layer is made of, and which layers are alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from drupe.api import counted
from drupe_model_builder.composition import Decoder
from drupe_model_builder.parts.activations import Xielu
from drupe_model_builder.parts.attention import Attention
from drupe_model_builder.parts.borrowed_attention import BorrowedAttention
from drupe_model_builder.parts.experts import Experts
from drupe_model_builder.parts.gated_delta import GatedDelta
from drupe_model_builder.parts.latent_attention import LatentAttention
from drupe_model_builder.parts.layer_inputs import LayerInput
from drupe_model_builder.parts.mamba1 import Mamba1
from drupe_model_builder.parts.mamba2 import Mamba2
from drupe_model_builder.parts.mlp import MLP
from drupe_model_builder.parts.norm import Norm
from drupe_model_builder.parts.short_conv import ShortConv
from drupe_model_builder.parts.step import Branch, Layer, Part, Step

MOST_NAMED = 6
"""Numbers of layers that are named one by one."""
BOTH_WAYS = "in both directions"


def in_words(decoder: Decoder) -> dict[str, str]:
    """By label ("layers 0 to 27"): the embedding, the layers in groups that are alike, and the head."""
    embedding, head = decoder.embedding, decoder.head
    ends = [f"{embedding.vocab_size:,} x {embedding.hidden_size:,}"]
    ends += [f"times {embedding.factor:g}"] if embedding.factor != 1.0 else []
    ends += ["learned positions"] if embedding.positions else []
    ends += [_norm(embedding.norm)] if embedding.norm else []
    found = {"embedding": ", ".join(ends)}
    groups: dict[str, list[int]] = {}
    for number, layer in enumerate(decoder.layers):
        groups.setdefault(_layer(layer), []).append(number)
    found |= {_numbers(numbers): text for text, numbers in groups.items()}
    if head is None:
        return {**found, "head": f"{_norm(decoder.final_norm)}, none: the hidden states are the result"}
    last = [_norm(decoder.final_norm), "the embedding's table" if head.tied else "a matrix of its own"]
    last += ["bias"] if head.bias else []
    last += [f"times {head.factor:g}"] if head.factor != 1.0 else []
    last += [f"softcap {head.softcap:g}"] if head.softcap else []
    return {**found, "head": ", ".join(last)}


def _numbers(numbers: list[int]) -> str:
    """Some layers by their numbers: "layer 3", "layers 0 to 27", or the first of many."""
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"layers {numbers[0]} to {numbers[-1]}"
    shown = ", ".join(map(str, numbers[:MOST_NAMED]))
    return f"layers {shown}" + (f", ... ({len(numbers)})" if len(numbers) > MOST_NAMED else "")


def _layer(layer: Layer) -> str:
    return "; ".join(map(_step, layer.steps))


def _step(step: Step) -> str:
    branches = " beside ".join(map(_branch, step.branches))
    return f"{_norm(step.before)}, {branches}" if step.before else branches


def _branch(branch: Branch) -> str:
    words = [_norm(branch.before)] if branch.before else []
    words.append(_part(branch.part))
    words += [_norm(branch.after)] if branch.after else []
    words += [f"times {branch.factor:g}"] if branch.factor != 1.0 else []
    return ", ".join(words)


def _part(part: Part) -> str:
    for kind, (name, describe) in PARTS.items():
        if isinstance(part, kind):
            return f"{name} ({', '.join(describe(part))})"
    return type(part).__name__


def _attention(part: Attention) -> Iterator[str]:
    yield f"{part.heads} heads of {part.head_dim}"
    if part.kv_heads != part.heads:
        yield f"{part.kv_heads} for keys and values"
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
        (part.query_norm is not None, "norms of query and key"),
        (part.query.bias is not None, "biases"),
        (bool(part.softcap), f"softcap {part.softcap:g}"),
        (part.sinks is not None, "sinks"),
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


def _mlp(part: MLP) -> Iterator[str]:
    yield f"{part.up.size:,} wide"
    yield "xielu" if isinstance(part.activation, Xielu) else part.activation
    yield from _set((part.gate is None, "without a gate"), (part.up.bias is not None, "biases"))


def _experts(part: Experts) -> Iterator[str]:
    router = part.router
    yield f"{router.chosen} of {counted(router.experts, 'expert')}"
    yield f"{part.up.rows[0].count:,} wide"
    if part.shared is not None:
        yield f"beside an MLP {part.shared.up.size:,} wide for all tokens"
    yield from _set(
        (router.score != "softmax", f"chosen by {router.score}"),
        (router.groups > 1, f"from {router.kept_groups} of {router.groups} groups"),
        (part.gate is None, "without a gate"),
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


def _mamba2(part: Mamba2) -> Iterator[str]:
    yield f"{part.heads} heads of {part.head_dim}"
    yield f"states of {part.state_size}"
    yield from _set((part.groups > 1, f"{part.groups} groups"))
    yield f"convolution over {part.convolution.kernel} tokens"


def _mamba1(part: Mamba1) -> Iterator[str]:
    yield f"{part.channels:,} channels"
    yield f"states of {part.state_size}"
    yield f"convolution over {part.convolution.kernel} tokens"


def _layer_input(part: LayerInput) -> Iterator[str]:
    yield f"{part.gate.size:,} wide"


PARTS: Mapping[type, tuple[str, Callable[[Any], Iterator[str]]]] = {
    Attention: ("attention", _attention),
    LatentAttention: ("latent attention", _latent_attention),
    BorrowedAttention: ("attention", _borrowed_attention),
    GatedDelta: ("gated delta", _gated_delta),
    Mamba1: ("Mamba", _mamba1),
    Mamba2: ("Mamba-2", _mamba2),
    ShortConv: ("short convolution", _short_convolution),
    MLP: ("MLP", _mlp),
    Experts: ("experts", _experts),
    LayerInput: ("an input of the layer's own", _layer_input),
}
"""What each part is called, and what is said of it."""


def _set(*words: tuple[bool, str]) -> Iterable[str]:
    return (word for holds, word in words if holds)


def _norm(norm: Norm | None) -> str:
    if norm is None:
        return ""
    return "RMS norm" if norm.kind == "rms" else "LayerNorm"
