"""genai_config.json: the description of a decoder for onnxruntime-genai, as plain data.

The keys are those of onnxruntime-genai 0.18 (src/config.cpp); it refuses keys that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from drupe.api import Notice, Record, UsageError, counted
from drupe_decoding import TAKEN_FROM, home_of, sampling, token_ids
from drupe_onnxruntime.genai.carried_states import pattern_of

if TYPE_CHECKING:
    from drupe_decoding import DecoderPorts
    from drupe_onnx import DecoderDescription

GENERIC_TYPE = "decoder"
TYPES = frozenset(
    {
        "chatglm", "ernie4_5", "gemma", "gemma2", "gemma3_text", "gemma4_text", "gptoss", "granite",
        "hunyuandensev1", "internlm2", "lfm2", "lfm2_moe", "llama", "mistral", "nemotron", "olmo", "phi",
        "phi3", "phi3small", "phimoe", "qwen2", "qwen3", "qwen3_5_moe_text", "qwen3_5_text", "smollm3",
    }
)  # fmt: skip
"""Model types that onnxruntime-genai runs like "decoder": with tokens, mask, a cache for each layer, and logits."""

PARTS = {"key": "key", "value": "value", "conv_state": "conv", "recurrent_state": "recurrent"}
"""The parts of a layer's cache, with onnxruntime-genai's words for them."""
DEFAULT_MAX_LENGTH = 4096
SMALLEST_MAX_LENGTH = 256
CACHE_SHARE = 4
"""The key-value cache takes at most this fraction, 1/n, of the memory that the weights leave free."""


class PortNames(Record):
    """The names of a decoder graph's inputs and outputs; those of the caches have %d for the layer.

    layers: how many layers there are at least, by the numbers of the caches. attending: the numbers of those with keys
    and values. only_convolutions: whether the other layers' states are those of convolutions alone.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    layers: int
    attending: frozenset[int] = frozenset()
    only_convolutions: bool = False


def model_type(architecture: str) -> str:
    """The model type for genai_config.json. onnxruntime-genai refuses types that it does not know."""
    return architecture if architecture in TYPES else GENERIC_TYPE


def port_names(decoder: DecoderPorts) -> PortNames:
    """The names for genai_config.json, of a decoder that onnxruntime-genai carries (`not_carried`)."""
    inputs, outputs = {name: port.name for name, port in decoder.plain.items()}, {"logits": decoder.logits.name}
    layers: dict[str, frozenset[int]] = {}
    for part, called in PARTS.items():
        caches = [cache for cache in decoder.caches if cache.place.part == part]
        layers[part] = frozenset(cache.place.layer for cache in caches)
        if caches:
            inputs[f"past_{called}_names"] = pattern_of(cache.past.name for cache in caches)
            outputs[f"present_{called}_names"] = pattern_of(cache.present for cache in caches)
    return PortNames(
        inputs,
        outputs,
        1 + max(cache.place.layer for cache in decoder.caches),
        layers["key"],
        bool(layers["conv_state"]) and not layers["recurrent_state"],
    )


def max_length(
    asked: int | None, context_length: int, cache_bytes_per_token: int, weight_bytes: int, memory: int | None
) -> int:
    """How many tokens, prompt and answer together, a package has room for by default.

    onnxruntime-genai allocates the whole cache for `max_length` before the first token: a context of 32768 tokens costs
    1.3 GB for a model of half a billion parameters and 10 GB for eight billion. Therefore the cache is limited to a
    quarter of the device memory that the weights leave free (if the memory is known), and to a length that is enough
    for most uses. A caller may ask for more, up to the model's context.
    """
    if asked is not None:
        if asked > context_length:
            raise UsageError(
                f"max_length {asked} is more than the model's context of {counted(context_length, 'token')}",
                cure=f"give a max_length of at most {context_length}",
            )
        return asked
    length = DEFAULT_MAX_LENGTH
    if memory is not None:
        fitting = (memory - weight_bytes) // CACHE_SHARE // max(cache_bytes_per_token, 1)
        length = min(length, max(fitting // SMALLEST_MAX_LENGTH * SMALLEST_MAX_LENGTH, SMALLEST_MAX_LENGTH))
    return min(length, context_length)


def stop_tokens(description: DecoderDescription, generation: Mapping[str, Any]) -> tuple[list[int], int]:
    """(the tokens that end an answer, the padding token), as in transformers: generation_config.json comes first.

    onnxruntime-genai needs both, and refuses end tokens outside the vocabulary. A model without an end token gets a
    token that it does not write: the beginning of sequence, or the last token of the vocabulary. Its padding is often
    a token that it does write.
    """

    ends = _stated_ends(description, generation)
    padding = _valid(generation.get("pad_token_id"), description) or _valid(description.pad, description)
    ends = ends or _valid(description.bos, description) or [description.vocab_size - 1]
    return ends, (padding or ends)[0]


def end_notices(description: DecoderDescription, generation: Mapping[str, Any]) -> Iterator[Notice]:
    """A notice on a model that names no end token, or none that it has."""
    if _stated_ends(description, generation):
        return
    named = token_ids(generation.get("eos_token_id")) or description.eos
    chosen = stop_tokens(description, generation)[0][0]
    why = (
        f"eos_token_id names {', '.join(map(str, named))}, and the model's tokens are 0 to {description.vocab_size - 1}"
        if named
        else f"{home_of(generation) if generation else 'the checkpoint'} names no end token"
    )
    yield Notice(
        "genai_config.json",
        "chosen",
        f"an answer ends with token {chosen}: {why}; onnxruntime-genai needs an end token, and transformers goes on up "
        "to the largest length",
        "name a token of the model as eos_token_id in generation_config.json, and optimize again",
    )


def settings_beside_ends(description: DecoderDescription, generation: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings for generating text of which `end_notices` says nothing: no end tokens, where none is the model's.

    Tokens that only config.json names are among them.
    """
    others = {TAKEN_FROM: "config.json", "bos_token_id": description.bos, "pad_token_id": description.pad}
    told = generation or {key: value for key, value in others.items() if value is not None}
    if not _stated_ends(description, generation):
        return {key: value for key, value in told.items() if key != "eos_token_id"}
    if told.get("eos_token_id") is not None:
        return told
    return {TAKEN_FROM: "config.json", **told, "eos_token_id": list(description.eos)}


def _stated_ends(description: DecoderDescription, generation: Mapping[str, Any]) -> list[int]:
    return _valid(generation.get("eos_token_id"), description) or _valid(description.eos, description)


def _valid(tokens: Any, description: DecoderDescription) -> list[int]:
    """The tokens of one, or of a list, that the vocabulary has."""
    listed = token_ids(list(tokens) if isinstance(tokens, tuple) else tokens) or []
    return [token for token in listed if 0 <= token < description.vocab_size]


def search(generation: Mapping[str, Any], vocab_size: int, length: int, shares_cache: bool) -> dict[str, Any]:
    """The `search` section: the checkpoint's sampling settings, and transformers' defaults for missing ones."""

    def number(key: str, default: float, low: float, high: float) -> float:
        value = generation.get(key)
        valid = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        return value if valid else default  # type: ignore[return-value]

    drawn = sampling(generation)
    return {
        "do_sample": drawn["do_sample"],
        "early_stopping": True,
        "length_penalty": number("length_penalty", 1.0, float("-inf"), float("inf")),
        "max_length": length,
        "min_length": int(number("min_length", 0, 0, length)),
        "no_repeat_ngram_size": int(number("no_repeat_ngram_size", 0, 0, length)),
        "num_beams": 1,
        "num_return_sequences": 1,
        "past_present_share_buffer": shares_cache,
        "repetition_penalty": number("repetition_penalty", 1.0, 1e-6, float("inf")),
        "temperature": drawn["temperature"],
        "top_k": min(drawn["top_k"], vocab_size),
        "top_p": drawn["top_p"],
    }


def document(
    description: DecoderDescription,
    names: PortNames,
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
            "inputs": dict(names.inputs),
            "outputs": dict(names.outputs),
        },
    }
    if names.only_convolutions:
        # Without this list the states of the convolutions are not fed. With recurrent states beside them it must not
        # be there: the states would be overwritten.
        model["decoder"]["layer_types"] = [
            "full_attention" if layer in names.attending else "conv" for layer in range(description.layers)
        ]
    if begins := _valid(description.bos, description):
        model["bos_token_id"] = begins[0]
    return {"model": model, "search": search(generation, description.vocab_size, length, shares_cache)}
