"""Wrappers around language models as data: where the text part's settings lie, what kind it is, and its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SECTIONS: tuple[tuple[str, ...], ...] = (
    ("text_config",),
    ("thinker_config", "text_config"),
    ("llm_config",),
    ("language_config",),
)
"""Where the settings lie in config.json; the first that is there counts."""

FLAT: Mapping[str, str] = {
    "hunyuan_vl": "hunyuan_vl_text",
    "llava": "llama",
    "llava_llama": "llama",
    "llava_mistral": "mistral",
    "llava_qwen": "qwen2",
    "paddleocr_vl": "paddleocr_vl_text",
    "phi3_v": "phi3",
    "phi4_multimodal": "phi4_multimodal",
    "phi4mm": "phi4_multimodal",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen2_vl": "qwen2_vl_text",
}
"""Wrappers, by `model_type`, that hold the text part's settings on the top level, and the kind of the text part."""

UNNAMED: Mapping[str, str] = {
    "aria": "aria_text",
    "aya_vision": "cohere2",
    "cohere_compass": "cohere_compass_text",
    "cohere2_vision": "cohere2",
    "deepseek_vl": "llama",
    "deepseek_vl_hybrid": "llama",
    "embedding_gemma2": "embedding_gemma2_text",
    "emu3": "emu3_text_model",
    "fuyu": "persimmon",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "glm46v": "glm4v_text",
    "glm4v": "glm4v_text",
    "glm4v_moe": "glm4v_moe_text",
    "glm_ocr": "glm_ocr_text",
    "granite4_vision": "granite4_vision_text",
    "granite_speech": "granite",
    "hunyuan_vl": "hunyuan_vl_text",
    "idefics2": "mistral",
    "idefics3": "llama",
    "internvl": "qwen2",
    "kimi_k25": "deepseek_v3",
    "lfm2_vl": "lfm2",
    "lfm3_vl": "lfm3",
    "llama4": "llama4_text",
    "llava": "llama",
    "llava_next": "llama",
    "llava_next_video": "llama",
    "llava_onevision": "qwen2",
    "mistral3": "mistral",
    "mllama": "mllama_text_model",
    "muse_glimmer": "muse_glimmer_text",
    "paddleocr_vl": "paddleocr_vl_text",
    "paligemma": "gemma",
    "qwen2_5_omni": "qwen2_5_omni_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen2_audio": "qwen2",
    "qwen2_vl": "qwen2_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_omni_moe": "qwen3_omni_moe_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "smolvlm": "llama",
    "video_llava": "llama",
    "vipllava": "llama",
    "voxtral": "llama",
}
"""The kind of a wrapper's text part where its section does not name it, as in transformers."""

READERS = ("_text_model", "_encoder")
"""The ends of kinds of text parts that encode text."""
WRITERS = frozenset({"emu3_text_model", "mllama_text_model"})
"""Kinds of text parts with such an end that write text by themselves."""
ENCODERS = frozenset({"bart", "bert", "mbart", "roberta", "t5", "umt5", "xlm-roberta"})

ALONE: Mapping[str, str] = {
    "glm4v_moe_text": "glm4_moe",
    "glm4v_text": "glm4",
    "glm_ocr_text": "glm4",
    "granite4_vision_text": "granite",
    "granite_docling_text": "granite",
    "hunyuan_vl_text": "hunyuan_v1_dense",
    "paddleocr_vl_text": "llama",
    "phi4_multimodal": "phi3",
    "qwen2_5_omni_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen3_omni_moe_text": "qwen3_moe",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_vl_text": "qwen3",
}
"""Kinds of text parts that compute for text what a family computes that exists alone. Others are one by name."""

MEAN_IMAGES = frozenset({"mrope_interleaved", "mrope_section", "use_mrope", "xdrope_section"})
"""Keys of a text part that say how images are placed."""


def _llama_like(
    vocabulary: int, hidden: int, intermediate: int, layers: int, heads: int, **more: Any
) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **more,
    }


_QWEN_72B = _llama_like(
    152064, 8192, 29568, 80, 64, num_key_value_heads=8, rms_norm_eps=1e-5, rope_theta=1e6, max_window_layers=80
)
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "aria_text": _llama_like(32000, 4096, 4096, 32, 32),
    "cohere": _llama_like(256000, 8192, 22528, 40, 64),
    "cohere2": _llama_like(256000, 8192, 22528, 40, 64),
    "emu3_text_model": _llama_like(184622, 4096, 14336, 32, 32),
    "gemma": _llama_like(256000, 3072, 24576, 28, 16),
    "gemma2": _llama_like(256000, 2304, 9216, 26, 8),
    "gemma3_text": _llama_like(262208, 2304, 9216, 26, 8),
    "gemma3n_text": _llama_like(262400, 2048, 16384, 35, 8),
    "gemma4_text": _llama_like(262144, 2304, 9216, 30, 8),
    "gemma4_unified_text": _llama_like(262144, 2304, 9216, 30, 8, max_position_embeddings=262144),
    "glm4v_moe_text": _llama_like(
        151424, 4096, 10944, 46, 96, max_position_embeddings=65536, partial_rotary_factor=0.5, num_key_value_heads=8
    ),
    "glm4v_text": _llama_like(
        151552, 4096, 13696, 40, 32, num_key_value_heads=2, max_position_embeddings=32768, rms_norm_eps=1e-5,
        partial_rotary_factor=1.0,
    ),
    "glm_ocr_text": _llama_like(
        59392, 1024, 4096, 16, 16, num_key_value_heads=8, rms_norm_eps=1e-5, partial_rotary_factor=1.0
    ),
    "granite": _llama_like(32000, 4096, 11008, 32, 32),
    "granite4_vision_text": _llama_like(32000, 4096, 11008, 32, 32),
    "granite_docling_text": _llama_like(
        133800, 1024, 2048, 28, 16, num_key_value_heads=4, max_position_embeddings=32768, rms_norm_eps=1e-5
    ),
    "hunyuan_vl_text": _llama_like(290943, 4096, 11008, 32, 32),
    "lfm2": _llama_like(65536, 2560, 12288, 32, 32),
    "lfm2_moe": _llama_like(65536, 2048, 7168, 32, 32),
    "lfm3": _llama_like(128000, 2048, 7680, 24, 16),
    "llama": _llama_like(32000, 4096, 11008, 32, 32),
    "llama4_text": _llama_like(202048, 5120, 8192, 48, 40),
    "ministral3": _llama_like(131072, 4096, 14336, 34, 32),
    "mllama_text_model": _llama_like(128256, 4096, 14336, 40, 32),
    "mistral": _llama_like(32000, 4096, 14336, 32, 32),
    "mixtral": _llama_like(32000, 4096, 14336, 32, 32),
    "paddleocr_vl_text": _llama_like(
        103424, 1024, 3072, 18, 16, num_key_value_heads=2, head_dim=128, max_position_embeddings=131072,
        rms_norm_eps=1e-5, rope_theta=5e5,
    ),
    "persimmon": _llama_like(262144, 4096, 16384, 36, 64),
    "phi3": _llama_like(32064, 3072, 8192, 32, 32),
    "phi4_multimodal": _llama_like(
        200064, 3072, 8192, 32, 32, num_key_value_heads=8, max_position_embeddings=131072, partial_rotary_factor=0.75
    ),
    "qwen2": _llama_like(151936, 4096, 22016, 32, 32),
    "qwen2_5_omni_text": _llama_like(152064, 3584, 18944, 28, 28, num_key_value_heads=4, rope_theta=1e6),
    "qwen2_5_vl_text": _QWEN_72B,
    "qwen2_vl_text": _QWEN_72B,
    "qwen3": _llama_like(151936, 4096, 22016, 32, 32),
    "qwen3_5_moe_text": {
        "vocab_size": 248320, "hidden_size": 2048, "num_hidden_layers": 40, "num_attention_heads": 16,
    },
    "qwen3_5_text": _llama_like(248320, 4096, 12288, 32, 16),
    "qwen3_moe": _llama_like(151936, 2048, 6144, 24, 32),
    "qwen3_omni_moe_text": _llama_like(
        3584, 2048, 18944, 28, 28, num_key_value_heads=4, rope_theta=1e6, norm_topk_prob=True
    ),
    "qwen3_vl_moe_text": _llama_like(
        151936, 2048, 5632, 24, 16, num_key_value_heads=16, rope_theta=5e5, max_position_embeddings=128000,
        moe_intermediate_size=1408, num_experts_per_tok=4,
    ),
    "qwen3_vl_text": _llama_like(
        151936, 4096, 22016, 32, 32, num_key_value_heads=32, rope_theta=5e5, max_position_embeddings=128000
    ),
}  # fmt: skip
"""What transformers' class of a text part takes where its section leaves a key out and the family alone differs or has
no default. Sizes have none there: a model that is saved alone states them."""

FIXED: Mapping[str, Mapping[str, Any]] = {
    "glm4v_text": {"attention_bias": True},
    "glm_ocr_text": {"attention_bias": False},
    "glm4v_moe_text": {"use_qk_norm": False},
    "paligemma": {"use_bidirectional_attention": True},
    "qwen3_vl_moe_text": {"norm_topk_prob": True},
}
"""What a wrapper, or the class of its text part, computes whatever the section says."""

HEADS_SHARE_ALL = frozenset({"glm4v_text"})
"""Kinds of text parts whose heads share the hidden size, whatever `head_dim` says."""
