"""Every key of generation_config.json: who keeps to it, or why it changes nothing in an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

TOKENS = frozenset({"bos_token_id", "eos_token_id", "pad_token_id"})
"""Special tokens: genai_config.json holds them."""

SAMPLING = frozenset({"do_sample", "temperature", "top_k", "top_p"})
"""Sampling: genai_config.json holds the settings for scripts; drupe samples only when it is asked to."""

SEARCH = frozenset({"min_length", "no_repeat_ngram_size", "repetition_penalty"})
"""Rules for choosing tokens that onnxruntime-genai knows, too: genai_config.json holds them."""

RULES = SEARCH | {
    "bad_words_ids", "begin_suppress_tokens", "exponential_decay_length_penalty", "forced_bos_token_id",
    "forced_eos_token_id", "min_new_tokens", "sequence_bias", "stop_strings", "suppress_tokens",
}  # fmt: skip
"""Rules for choosing tokens that drupe's own sessions keep to: see `GenerationRules`."""

TAKEN_FROM = "_taken_from"
"""Names the file in which the settings stand, in a generation_config.json that drupe made."""

NEUTRAL = frozenset(
    {
        # how long an answer may be is asked with each answer
        "max_length", "max_new_tokens",
        # they take effect in beams, for encoders, or beside an assistant model only
        "early_stopping", "length_penalty", "encoder_repetition_penalty", "encoder_no_repeat_ngram_size",
        "decoder_start_token_id", "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule",
        "assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind", "target_lookbehind",
        "assistant_ensemble_weight", "speculation_type", "use_mtp", "prompt_lookup_num_tokens",
        "max_matching_ngram_size",
        # the same answer, computed or shown in another way
        "cache_config", "cache_implementation", "compile_config", "continuous_batching_config", "disable_compile",
        "low_memory", "max_cache_len", "num_return_sequences", "output_attentions", "output_hidden_states",
        "output_logits", "output_scores", "prefill_chunk_size", "remove_invalid_values", "renormalize_logits",
        "return_dict_in_generate", "use_cache",
        # notes
        TAKEN_FROM, "_commit_hash", "_from_model_config", "chat_format", "transformers_version",
    }
)  # fmt: skip


def _is(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


def _at_least(number: float) -> Callable[[Any], bool]:
    return lambda value: value is None or (isinstance(value, int | float) and value >= number)


IGNORED: Mapping[str, Callable[[Any], bool]] = {
    "constraints": _is(None, []),
    "diversity_penalty": _is(None, 0),
    "dola_layers": _is(None),
    "force_words_ids": _is(None, []),
    "guidance_scale": _is(None, 1),
    "max_time": _is(None),
    "num_beam_groups": _is(None, 1),
    "num_beams": _is(None, 1),
    "penalty_alpha": _is(None, 0),
    "token_healing": _is(None, False),
    "watermarking_config": _is(None),
}
"""Keys that no runtime keeps to, with the values that ask for nothing."""

IGNORED_IN_SAMPLING: Mapping[str, Callable[[Any], bool]] = {
    "epsilon_cutoff": _is(None, 0),
    "eta_cutoff": _is(None, 0),
    "min_p": _is(None, 0),
    "top_h": _is(None, 1),
    "typical_p": _at_least(1),
}
"""The same for keys that matter only where tokens are drawn at random."""

GENERATION_KEYS = TOKENS | SAMPLING | RULES | NEUTRAL | IGNORED.keys() | IGNORED_IN_SAMPLING.keys()
"""All keys that are known."""
