"""The architectures that can be trained: the demo's own, and two small ones that quality is measured with beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from bpe import MAX_LENGTH


@dataclass(frozen=True)
class Architecture:
    """Classes and sizes of a model. vocabulary: tokens of its tokenizer, which is trained on the same text."""

    title: str
    purpose: str
    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    vocabulary: int
    sizes: Mapping[str, Any] = field(default_factory=dict)

    def create(self, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
        """A model with random weights."""
        return self.model(
            self.config(
                vocab_size=len(tokenizer),
                max_position_embeddings=MAX_LENGTH,
                rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **self.sizes,
            )
        )


ARCHITECTURES = {
    # Every width is a multiple of 256, so that any quantization block size divides it.
    "qwen3": Architecture(
        "drupe-demo",
        "It is a model to try the\ntoolkit on: small enough to be carried in the package, large enough that damage "
        "done to it can be measured. It is no\ncoding assistant: what it writes looks like Python, and means nothing.",
        Qwen3Config,
        Qwen3ForCausalLM,
        4096,
        {
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "tie_word_embeddings": True,
        },
    ),
    # No width is a multiple of 128, as in SmolLM2 (576); embedding and head are two matrices.
    "llama": Architecture(
        "bench-llama",
        "It is here to measure quantization with: its\nwidths are no multiples of 128, and its embedding and head are "
        "two matrices.",
        LlamaConfig,
        LlamaForCausalLM,
        2048,
        {
            "hidden_size": 192,
            "intermediate_size": 448,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "tie_word_embeddings": False,
        },
    ),
    # As in Qwen2.5 0.5B: biases, widths that are multiples of 128, a tied embedding that is a quarter of all weights.
    "qwen2": Architecture(
        "bench-qwen2",
        "It is here to measure quantization with: query,\nkey and value have biases, and the tied embedding is a "
        "quarter of all weights.",
        Qwen2Config,
        Qwen2ForCausalLM,
        2048,
        {
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
    ),
    # Scaled embeddings, norms with 1 added, four norms a layer, limited logits, every second layer with a window.
    "gemma2": Architecture(
        "bench-gemma2",
        "It is here to measure quantization with: it has\nfour norms a layer with 1 added to their weights, limited "
        "logits, and a sliding window in every second layer.",
        Gemma2Config,
        Gemma2ForCausalLM,
        2048,
        {
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 128,
            "tie_word_embeddings": True,
        },
    ),
    # Experts: most of the weights are in matrices that a token uses an eighth of.
    "qwen3_moe": Architecture(
        "bench-qwen3-moe",
        "It is here to measure quantization with: most of\nits weights are in experts, and a token goes through two of "
        "sixteen.",
        Qwen3MoeConfig,
        Qwen3MoeForCausalLM,
        2048,
        {
            "hidden_size": 192,
            "intermediate_size": 512,
            "moe_intermediate_size": 128,
            "num_experts": 16,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "tie_word_embeddings": True,
        },
    ),
}
