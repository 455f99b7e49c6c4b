"""What a hub id's name tells of the model: its family, known before anything is downloaded."""

from __future__ import annotations

import re

from drupe.api import Record


class Named(Record):
    """A model whose name is known. family: the `model_type` of its decoder, "" where it has none that writes text.

    more: what the model takes beside text, "" where it takes text alone. what: what a model without a family is.
    """

    family: str = ""
    more: str = ""
    what: str = ""


_ROWS: tuple[tuple[str, Named], ...] = (
    (r"whisper|parakeet|asr|speech|(^|/)ast-", Named(what="a model for speech")),
    (r"stable-diffusion|flux|sdxl", Named(what="a model that makes images")),
    (r"clip|(^|/)sam|resnet|vit-base|mobilenet|adetailer|table-transformer", Named(what="a model for images")),
    (r"bert|gte-|minilm|bge-", Named(what="an encoder of text")),
    (r"gemma-?4", Named("gemma4_text", "images and sound")),
    (r"gemma-?3n", Named("gemma3n_text", "images and sound")),
    (r"gemma-?3-(270m|1b)", Named("gemma3_text")),
    (r"gemma-?3|translategemma", Named("gemma3_text", "images")),
    (r"ministral-?3", Named("ministral3", "images")),
    (r"smollm3", Named("smollm3")),
    (r"olmo-?3", Named("olmo3")),
    (r"olmo", Named("olmo")),
    (r"hy-mt", Named("hunyuan_v1_dense")),
    (r"mistral", Named("mistral")),
    (r"qwen3[.-]5-.*-a\d+b", Named("qwen3_5_moe_text", "images")),
    (r"qwen3[.-]5", Named("qwen3_5_text", "images")),
    (r"qwen3-vl", Named("qwen3", "images")),
    (r"qwen2(\.5)?-vl|fara-|videochat", Named("qwen2", "images")),
    (r"qwen3", Named("qwen3")),
    (r"qwen|deepseek-r1-distill-qwen", Named("qwen2")),
    (r"gpt-oss", Named("gpt_oss")),
    (r"gpt-?2", Named("gpt2")),
    (r"(^|/)opt-", Named("opt")),
    (r"phi-[34]", Named("phi3")),
    (r"zamba-?2", Named("zamba2")),
    (r"llama-?4", Named("llama4_text", "images")),
    (r"llama", Named("llama")),
)
"""The first pattern that is found in the name counts; upper and lower case are the same."""


def named(reference: str) -> Named | None:
    """What is known of a hub id by its name; None where nothing is."""
    return next((found for pattern, found in _ROWS if re.search(pattern, reference.casefold())), None)
