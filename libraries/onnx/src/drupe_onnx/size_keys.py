"""The keys of a decoder's sizes in configurations."""

from __future__ import annotations

from collections.abc import Mapping

SIZE_KEYS: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "n_head_kv", "num_kv_heads"),
    "head_dim": ("head_dim", "attention_head_dim", "head_size"),
    "vocab_size": ("vocab_size", "padded_vocab_size"),
    "context_length": (
        "context_length",
        "max_position_embeddings",
        "n_positions",
        "n_ctx",
        "max_seq_len",
        "seq_length",
    ),
}
"""By the field of a DecoderDescription; transformers' models use different keys."""
