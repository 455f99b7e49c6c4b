"""with_class_tokens: the special tokens that transformers' configuration classes have where config.json names none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drupe_checkpoints.configuration import Configuration

KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")
Tokens = tuple[int | None, int | Sequence[int] | None, int | None]
GEMMA: Tokens = (2, 1, 0)
LLAMA: Tokens = (1, 2, None)
LLAMA_3: Tokens = (128000, 128001, None)
GPT_2: Tokens = (50256, 50256, None)
OLMO: Tokens = (None, 50279, 1)
PADDED: Tokens = (1, 2, 0)
CLASSES: Mapping[str, Tokens] = {
    **dict.fromkeys(("falcon_mamba", "mamba"), (0, 0, 0)),
    **dict.fromkeys(("deepseek_v3", "glm4_moe_lite"), (0, 1, None)),
    **dict.fromkeys(("mamba2", "seed_oss"), (0, 2, 1)),
    **dict.fromkeys(("exaone4", "gpt_neox"), (0, 2, None)),
    **dict.fromkeys(("ministral3", "mistral4"), (1, 2, 11)),
    **dict.fromkeys(("apertus", "helium"), (1, 2, 3)),
    **dict.fromkeys(("arcee", "bitnet", "youtu"), LLAMA_3),
    **dict.fromkeys(
        (
            "bamba", "ernie4_5", "ernie4_5_moe", "falcon_h1", "hunyuan_v1_dense", "hunyuan_v1_moe", "jamba", "lfm2",
            "lfm2_moe", "nemotron_h", "zamba2",
        ),
        PADDED,
    ),
    **dict.fromkeys(
        (
            "bloom", "deepseek_v2", "granite", "granitemoe", "granitemoehybrid", "granitemoeshared", "hyperclovax",
            "iquestcoder", "llama", "llama4_text", "minicpm3", "ministral", "mistral", "mixtral", "persimmon", "phi",
            "phimoe",
        ),
        LLAMA,
    ),
    **dict.fromkeys(
        (
            "embedding_gemma2_text", "gemma", "gemma2", "gemma3_text", "gemma3n_text", "gemma4_text",
            "gemma4_unified_text", "vaultgemma",
        ),
        GEMMA,
    ),
    **dict.fromkeys(("cohere", "cohere2", "cohere2_moe"), (5, 255001, 0)),
    **dict.fromkeys(("codegen", "gpt2", "gpt_bigcode", "gptj", "starcoder2"), GPT_2),
    **dict.fromkeys(("flex_olmo", "olmo_hybrid"), (None, 100257, 100277)),
    **dict.fromkeys(("olmo", "olmo2", "olmo3", "olmoe"), OLMO),
    **dict.fromkeys(("glm", "glm4"), (None, (151329, 151336, 151338), 151329)),
    "axk1": (163691, 163691, None),
    "bailing_hybrid": (None, 156895, 156892),
    "cwm": (128000, (128001, 128008, 128009), None),
    "eurobert": (128000, 128001, 128001),
    "exaone_moe": (1, 53, 0),
    "falcon": (11, 11, None),
    "granite_swa": (100257, 100257, None),
    "internlm3": (1, 2, 2),
    "jais2": (0, 150024, None),
    "kimi_linear": (163584, 163586, 163839),
    "lfm3": (124894, 124900, 124893),
    "minimax_m2": (200034, 200020, None),
    "muse_glimmer_text": (200000, 200001, None),
    "nanochat": (0, 1, 1),
    "nemotron": (2, 3, None),
    "phi3": (1, 32000, 32000),
    "smollm3": (128000, 128001, 128004),
    "stablelm": (0, 0, None),
}  # fmt: skip
"""By `model_type`, the tokens of KEYS in transformers 5. A class that is not here has none."""


def with_class_tokens(config: Configuration) -> Configuration:
    """The configuration, with its class's tokens for keys that it leaves out. A key that is null stays null.

    Tokens that the model does not have are left out: they end nothing, in transformers as well.
    """
    kind, rows = config.get("model_type"), config.get("vocab_size")
    tokens = CLASSES.get(kind, (None, None, None)) if isinstance(kind, str) else (None, None, None)
    found = {
        key: list(token) if isinstance(token, Sequence) else token for key, token in zip(KEYS, tokens, strict=True)
    }
    return config.with_defaults({key: token for key, token in found.items() if _has(rows, token)})


def _has(rows: object, token: int | Sequence[int] | None) -> bool:
    """Whether a model of so many tokens has the token, or all of several."""
    if token is None or not isinstance(rows, int):
        return False
    return max(token) < rows if isinstance(token, Sequence) else token < rows
