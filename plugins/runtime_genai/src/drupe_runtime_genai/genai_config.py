"""genai_config.json: what onnxruntime-genai has to know of a decoder, as plain data.

The keys are those of onnxruntime-genai 0.18 (src/config.cpp); it refuses keys that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drupe.api import ModelError, UsageError

if TYPE_CHECKING:
    from drupe_onnx.package import DecoderDescription

GENERIC_TYPE = "decoder"
TYPES = frozenset(
    {
        "chatglm", "ernie4_5", "gemma", "gemma2", "gemma3_text", "gemma4_text", "gptoss", "granite", "hunyuandensev1",
        "internlm2", "llama", "mistral", "nemotron", "olmo", "phi", "phi3", "phi3small", "phimoe", "qwen2", "qwen3",
        "smollm3",
    }
)  # fmt: skip
"""Names that onnxruntime-genai runs in the way it runs "decoder": tokens, mask, a cache a layer, logits."""

DEFAULT_MAX_LENGTH = 4096
SMALLEST_MAX_LENGTH = 256
CACHE_SHARE = 4
"""The key-value cache takes at most one part in so many of the memory that the weights leave."""


@dataclass(frozen=True)
class Ports:
    """The names of a decoder graph's inputs and outputs; those of the caches have %d for the layer."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    layers: int


def model_type(architecture: str) -> str:
    """The type that makes onnxruntime-genai run a decoder; it refuses names it does not know."""
    return architecture if architecture in TYPES else GENERIC_TYPE


def ports(inputs: Iterable[str], outputs: Iterable[str]) -> Ports:
    """Which input and output of the graph is which. Raises ModelError for what is no decoder with a cache."""
    plain, caches = _split(inputs)
    plain_outputs, presents = _split(outputs)
    known = {"input_ids", "attention_mask", "position_ids"}
    if unknown := sorted(plain - known):
        raise ModelError(f"onnxruntime-genai does not know what to give the graph's input '{unknown[0]}'")
    if "input_ids" not in plain or "logits" not in plain_outputs or not caches:
        raise ModelError("the graph is not a decoder: it lacks input_ids, logits, or a key-value cache")
    return Ports(
        {name: name for name in ("input_ids", "attention_mask", "position_ids") if name in plain}
        | {"past_key_names": _pattern(caches, "key"), "past_value_names": _pattern(caches, "value")},
        {
            "logits": "logits",
            "present_key_names": _pattern(presents, "key"),
            "present_value_names": _pattern(presents, "value"),
        },
        layers=len(caches[_pattern(caches, "key")]),
    )


def _split(names: Iterable[str]) -> tuple[set[str], dict[str, list[int]]]:
    """Names without a number, and those with one as patterns with their numbers."""
    plain: set[str] = set()
    numbered: dict[str, list[int]] = {}
    for name in names:
        match = re.search(r"\d+", name)
        if match is None:
            plain.add(name)
        else:
            pattern = name[: match.start()] + "%d" + name[match.end() :]
            numbered.setdefault(pattern, []).append(int(match.group()))
    return plain, numbered


def _pattern(numbered: Mapping[str, Sequence[int]], word: str) -> str:
    """The one pattern for keys or for values: "past_key_values.%d.value" is for values, as the word that comes last."""
    found = [pattern for pattern in numbered if max(("key", "value"), key=pattern.rfind) == word and word in pattern]
    if len(found) != 1:
        raise ModelError(f"the graph has {len(found)} families of {word} caches where onnxruntime-genai wants one")
    return found[0]


def max_length(
    asked: int | None, context_length: int, cache_bytes_per_token: int, weight_bytes: int, memory: int | None
) -> int:
    """How many tokens, prompt and answer together, a package makes room for by default.

    onnxruntime-genai allocates the whole cache for `max_length` before the first token: a model's own context of 32768
    costs 1.3 GB for half a billion parameters and 10 GB for eight. So the cache is held to a quarter of what the
    weights leave of the device's memory (where that is known), and to a length that most uses stay under. A caller who
    needs more asks for more, up to the context.
    """
    if asked is not None:
        if asked > context_length:
            raise UsageError(
                f"max_length {asked} is more than the model's context of {context_length} tokens",
                cure=f"a max_length of at most {context_length}",
            )
        return asked
    length = DEFAULT_MAX_LENGTH
    if memory is not None:
        fitting = (memory - weight_bytes) // CACHE_SHARE // max(cache_bytes_per_token, 1)
        length = min(length, max(fitting // SMALLEST_MAX_LENGTH * SMALLEST_MAX_LENGTH, SMALLEST_MAX_LENGTH))
    return min(length, context_length)


def stop_tokens(description: DecoderDescription, generation: Mapping[str, Any]) -> tuple[list[int], int]:
    """(tokens that end an answer, the padding token), as transformers takes them: generation_config.json goes first.

    onnxruntime-genai wants both, and refuses ends that are outside the vocabulary. A model with no end of its own gets
    a token that it does not write: padding, the beginning, or the last of the vocabulary.
    """

    def valid(tokens: Any) -> list[int]:
        listed = tokens if isinstance(tokens, (list, tuple)) else [tokens]
        return [token for token in listed if isinstance(token, int) and 0 <= token < description.vocab_size]

    ends = valid(generation.get("eos_token_id")) or valid(description.eos)
    padding = valid(generation.get("pad_token_id")) or valid(description.pad)
    fallback = padding or valid(description.bos) or [description.vocab_size - 1]
    ends = ends or fallback
    return ends, (padding or ends)[0]


def search(generation: Mapping[str, Any], vocab_size: int, length: int, shares_cache: bool) -> dict[str, Any]:
    """The `search` section: how the checkpoint wants to be sampled, with transformers' defaults where it is silent."""

    def number(key: str, default: float, low: float, high: float) -> float:
        value = generation.get(key)
        valid = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        return value if valid else default  # type: ignore[return-value]

    temperature = number("temperature", 1.0, 0.0, float("inf"))
    return {
        "do_sample": bool(generation.get("do_sample", False)) and temperature > 0,
        "early_stopping": True,
        "length_penalty": number("length_penalty", 1.0, float("-inf"), float("inf")),
        "max_length": length,
        "min_length": 0,
        "no_repeat_ngram_size": int(number("no_repeat_ngram_size", 0, 0, length)),
        "num_beams": 1,
        "num_return_sequences": 1,
        "past_present_share_buffer": shares_cache,
        "repetition_penalty": number("repetition_penalty", 1.0, 1e-6, float("inf")),
        "temperature": temperature if temperature > 0 else 1.0,
        "top_k": min(int(number("top_k", 50, 0, float("inf"))), vocab_size),
        "top_p": number("top_p", 1.0, 0.0, 1.0),
    }


def document(
    description: DecoderDescription,
    graph: Ports,
    *,
    filename: str,
    provider_options: Sequence[Mapping[str, Mapping[str, str]]],
    generation: Mapping[str, Any],
    length: int,
    shares_cache: bool,
    threads: int | None,
) -> dict[str, Any]:
    """The whole of genai_config.json. threads: None leaves the number to onnxruntime."""
    ends, padding = stop_tokens(description, generation)
    session: dict[str, Any] = {"log_id": "onnxruntime-genai", "provider_options": list(provider_options)}
    if threads is not None:
        session["intra_op_num_threads"] = threads
    model: dict[str, Any] = {
        "type": model_type(description.model_type),
        "context_length": description.context_length,
        "vocab_size": description.vocab_size,
        "eos_token_id": ends[0] if len(ends) == 1 else ends,
        "pad_token_id": padding,
        "decoder": {
            "filename": filename,
            "session_options": session,
            "hidden_size": description.hidden_size,
            "head_size": description.head_dim,
            "num_attention_heads": description.heads,
            "num_key_value_heads": description.kv_heads,
            "num_hidden_layers": description.layers,
            "inputs": dict(graph.inputs),
            "outputs": dict(graph.outputs),
        },
    }
    if description.bos is not None:
        model["bos_token_id"] = description.bos
    return {"model": model, "search": search(generation, description.vocab_size, length, shares_cache)}
