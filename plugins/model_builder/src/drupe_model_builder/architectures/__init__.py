"""The supported architectures: for each `model_type`, a function from config.json to a recipe.

A new architecture is a file in this folder, a line in ARCHITECTURES and one in `keys.KEYS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from drupe.api import ModelError, nearest
from drupe_checkpoints import Checkpoint, Configuration
from drupe_model_builder.architectures.accounting import configuration_notices as configuration_notices
from drupe_model_builder.architectures.accounting import refuse_unsupported_keys
from drupe_model_builder.architectures.granite import granite
from drupe_model_builder.architectures.llama import llama
from drupe_model_builder.architectures.mistral import mistral
from drupe_model_builder.architectures.qwen2 import qwen2
from drupe_model_builder.architectures.qwen3 import qwen3
from drupe_model_builder.recipe import DecoderRecipe

ARCHITECTURES: Mapping[str, Callable[[Configuration], DecoderRecipe]] = {
    "granite": granite,
    "llama": llama,
    "mistral": mistral,
    "qwen2": qwen2,
    "qwen3": qwen3,
}
# Well-known decoders that no plugin builds yet, by the beginning of their `model_type`.
WITHOUT_A_PLUGIN = ("deepseek", "falcon", "gemma", "glm", "gpt", "llama4", "mamba", "mixtral", "phi", "qwen2_moe",
                    "qwen3_moe", "qwen3_next", "starcoder")  # fmt: skip


def recipe_for(checkpoint: Checkpoint) -> DecoderRecipe:
    """The recipe of a checkpoint's decoder. Raises ModelError for an unsupported checkpoint."""
    config = checkpoint.config
    model_type = checkpoint.model_type
    if model_type not in ARCHITECTURES:
        raise ModelError(
            f"the architecture '{_name(checkpoint)}' is not supported; {_near(model_type)}",
            where=config.path,
            cure=_plugin_wanted(model_type),
        )
    if checkpoint.architectures and not any(name.endswith("ForCausalLM") for name in checkpoint.architectures):
        raise ModelError(
            f"{_name(checkpoint)} does not generate text; only ...ForCausalLM models are supported",
            where=config.path,
            cure="use the causal language model that the checkpoint was made from",
        )
    _ = checkpoint.packing  # raises ModelError for an unsupported quantization
    refuse_unsupported_keys(config)
    return ARCHITECTURES[model_type](config)


def _name(checkpoint: Checkpoint) -> str:
    return ", ".join(checkpoint.architectures) or checkpoint.model_type


def _near(model_type: str) -> str:
    close = nearest(model_type, ARCHITECTURES)
    known = ", ".join(ARCHITECTURES)
    return f"similar and supported: {', '.join(close)}" if close else f"supported: {known}"


def _plugin_wanted(model_type: str) -> str:
    """The cure for an unsupported architecture: a plugin that builds it."""
    wanted = f"write or install a plugin with a pass from kind hf to kind onnx that builds '{model_type}'"
    known = model_type.startswith(WITHOUT_A_PLUGIN)
    return f"{wanted}; none is known yet" if known else f"{wanted}; drupe plugins lists those installed"
