"""The families that are built: for each `model_type`, a function from config.json to a composition of parts.

A new family is a file in this folder and a line in FAMILIES.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from drupe.api import ModelError, nearest
from drupe_checkpoints import Checkpoint, Configuration
from drupe_model_builder.composition import Decoder
from drupe_model_builder.families.afmoe import afmoe
from drupe_model_builder.families.apertus import apertus
from drupe_model_builder.families.arcee import arcee
from drupe_model_builder.families.baichuan import baichuan
from drupe_model_builder.families.bamba import bamba
from drupe_model_builder.families.bitnet import bitnet
from drupe_model_builder.families.bloom import bloom
from drupe_model_builder.families.chatglm import chatglm
from drupe_model_builder.families.codegen import codegen
from drupe_model_builder.families.cohere import cohere, cohere2
from drupe_model_builder.families.cohere2_moe import cohere2_moe
from drupe_model_builder.families.cwm import cwm
from drupe_model_builder.families.dots1 import dots1
from drupe_model_builder.families.ernie4_5 import ernie4_5
from drupe_model_builder.families.ernie4_5_moe import ernie4_5_moe
from drupe_model_builder.families.exaone import exaone
from drupe_model_builder.families.exaone4 import exaone4
from drupe_model_builder.families.exaone_moe import exaone_moe
from drupe_model_builder.families.falcon import falcon
from drupe_model_builder.families.falcon_h1 import falcon_h1
from drupe_model_builder.families.gemma import gemma
from drupe_model_builder.families.gemma2 import gemma2
from drupe_model_builder.families.gemma3 import gemma3_text
from drupe_model_builder.families.gemma4 import gemma4_text, gemma4_unified_text
from drupe_model_builder.families.glm import glm, glm4
from drupe_model_builder.families.glm4_moe import glm4_moe, solar_open
from drupe_model_builder.families.gpt2 import gpt2, gpt_bigcode
from drupe_model_builder.families.gpt_neox import gpt_neox
from drupe_model_builder.families.gpt_oss import gpt_oss
from drupe_model_builder.families.gptj import gptj
from drupe_model_builder.families.granite import granite
from drupe_model_builder.families.granite_swa import granite_swa
from drupe_model_builder.families.granitemoe import granitemoe, granitemoeshared
from drupe_model_builder.families.granitemoehybrid import granitemoehybrid
from drupe_model_builder.families.helium import helium
from drupe_model_builder.families.hunyuan import hunyuan_v1_dense
from drupe_model_builder.families.hunyuan_v1_moe import hunyuan_v1_moe
from drupe_model_builder.families.hy_v3 import hy_v3
from drupe_model_builder.families.hyperclovax import hyperclovax
from drupe_model_builder.families.internlm2 import internlm2
from drupe_model_builder.families.internlm3 import internlm3
from drupe_model_builder.families.jais2 import jais2
from drupe_model_builder.families.kolibri1 import kolibri1
from drupe_model_builder.families.laguna import laguna
from drupe_model_builder.families.lfm2 import lfm2, lfm2_moe
from drupe_model_builder.families.lfm3 import lfm3
from drupe_model_builder.families.llama import llama
from drupe_model_builder.families.mamba import mamba2
from drupe_model_builder.families.mellum import mellum
from drupe_model_builder.families.minicpm import minicpm
from drupe_model_builder.families.minimax_m2 import minimax_m2
from drupe_model_builder.families.ministral import ministral
from drupe_model_builder.families.ministral3 import ministral3
from drupe_model_builder.families.mistral import mistral
from drupe_model_builder.families.mixtral import mixtral
from drupe_model_builder.families.mpt import mpt
from drupe_model_builder.families.nanochat import nanochat
from drupe_model_builder.families.nemotron import nemotron
from drupe_model_builder.families.nemotron_h import nemotron_h
from drupe_model_builder.families.olmo import olmo
from drupe_model_builder.families.olmo2 import olmo2, olmo3
from drupe_model_builder.families.olmo_hybrid import olmo_hybrid
from drupe_model_builder.families.olmoe import flex_olmo, olmoe
from drupe_model_builder.families.persimmon import persimmon
from drupe_model_builder.families.phi import phi
from drupe_model_builder.families.phi3 import phi3
from drupe_model_builder.families.phimoe import phimoe
from drupe_model_builder.families.qwen2 import qwen2
from drupe_model_builder.families.qwen2_moe import qwen2_moe
from drupe_model_builder.families.qwen3 import qwen3
from drupe_model_builder.families.qwen3_5 import qwen3_5_moe_text, qwen3_5_text
from drupe_model_builder.families.qwen3_moe import qwen3_moe
from drupe_model_builder.families.qwen3_next import qwen3_next
from drupe_model_builder.families.seed_oss import seed_oss
from drupe_model_builder.families.smollm3 import smollm3
from drupe_model_builder.families.stablelm import stablelm
from drupe_model_builder.families.starcoder2 import starcoder2
from drupe_model_builder.families.vaultgemma import vaultgemma

FAMILIES: Mapping[str, Callable[[Configuration], Decoder]] = {
    "afmoe": afmoe,
    "apertus": apertus,
    "arcee": arcee,
    "baichuan": baichuan,
    "bamba": bamba,
    "bitnet": bitnet,
    "bloom": bloom,
    "chatglm": chatglm,
    "codegen": codegen,
    "cohere": cohere,
    "cohere2": cohere2,
    "cohere2_moe": cohere2_moe,
    "cwm": cwm,
    "dots1": dots1,
    "ernie4_5": ernie4_5,
    "ernie4_5_moe": ernie4_5_moe,
    "exaone": exaone,
    "exaone4": exaone4,
    "exaone_moe": exaone_moe,
    "falcon": falcon,
    "falcon_h1": falcon_h1,
    "flex_olmo": flex_olmo,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3_text": gemma3_text,
    "gemma4_text": gemma4_text,
    "gemma4_unified_text": gemma4_unified_text,
    "glm": glm,
    "glm4": glm4,
    "glm4_moe": glm4_moe,
    "gpt2": gpt2,
    "gpt_bigcode": gpt_bigcode,
    "gpt_neox": gpt_neox,
    "gpt_oss": gpt_oss,
    "gptj": gptj,
    "granite": granite,
    "granite_swa": granite_swa,
    "granitemoe": granitemoe,
    "granitemoehybrid": granitemoehybrid,
    "granitemoeshared": granitemoeshared,
    "helium": helium,
    "hunyuan_v1_dense": hunyuan_v1_dense,
    "hunyuan_v1_moe": hunyuan_v1_moe,
    "hy_v3": hy_v3,
    "hyperclovax": hyperclovax,
    "internlm2": internlm2,
    "internlm3": internlm3,
    "iquestcoder": llama,
    "jais2": jais2,
    "kolibri1": kolibri1,
    "laguna": laguna,
    "lfm2": lfm2,
    "lfm2_moe": lfm2_moe,
    "lfm3": lfm3,
    "llama": llama,
    "mamba2": mamba2,
    "mellum": mellum,
    "minicpm": minicpm,
    "minimax_m2": minimax_m2,
    "ministral": ministral,
    "ministral3": ministral3,
    "mistral": mistral,
    "mixtral": mixtral,
    "mpt": mpt,
    "nanochat": nanochat,
    "nemotron": nemotron,
    "nemotron_h": nemotron_h,
    "olmo": olmo,
    "olmo2": olmo2,
    "olmo3": olmo3,
    "olmoe": olmoe,
    "olmo_hybrid": olmo_hybrid,
    "persimmon": persimmon,
    "phi": phi,
    "phi3": phi3,
    "phimoe": phimoe,
    "qwen2": qwen2,
    "qwen2_moe": qwen2_moe,
    "qwen3": qwen3,
    "qwen3_5_moe_text": qwen3_5_moe_text,
    "qwen3_5_text": qwen3_5_text,
    "qwen3_next": qwen3_next,
    "qwen3_moe": qwen3_moe,
    "seed_oss": seed_oss,
    "smollm3": smollm3,
    "solar_open": solar_open,
    "stablelm": stablelm,
    "starcoder2": starcoder2,
    "vaultgemma": vaultgemma,
}
GENERATES = ("ForCausalLM", "LMHeadModel", "ChatGLMForConditionalGeneration", "ChatGLMModel")
# Well-known decoders that no plugin builds yet, by the beginning of their `model_type`.
WITHOUT_A_PLUGIN = ("deepseek", "falcon", "gemma", "glm", "gpt", "llama4", "mamba", "phi", "starcoder")


def composition_of(checkpoint: Checkpoint) -> Decoder:
    """The composition of a checkpoint's decoder. Raises ModelError for an unsupported checkpoint."""
    config = checkpoint.config
    model_type = checkpoint.model_type
    if model_type not in FAMILIES:
        raise ModelError(
            f"the architecture '{_name(checkpoint)}' is not supported; {_near(model_type)}",
            where=config.path,
            cure=_plugin_wanted(model_type),
        )
    if checkpoint.architectures and not any(name.endswith(GENERATES) for name in checkpoint.architectures):
        raise ModelError(
            f"{_name(checkpoint)} does not generate text; only ...ForCausalLM models are supported",
            where=config.path,
            cure="use the causal language model that the checkpoint was made from",
        )
    _ = checkpoint.packing  # raises ModelError for an unsupported quantization
    return FAMILIES[model_type](config)


def _name(checkpoint: Checkpoint) -> str:
    return ", ".join(checkpoint.architectures) or checkpoint.model_type


def _near(model_type: str) -> str:
    close = nearest(model_type, FAMILIES)
    known = ", ".join(FAMILIES)
    return f"similar and supported: {', '.join(close)}" if close else f"supported: {known}"


def _plugin_wanted(model_type: str) -> str:
    """The cure for an unsupported architecture: a plugin that builds it."""
    wanted = f"write or install a plugin with a pass from kind hf to kind onnx that builds '{model_type}'"
    known = model_type.startswith(WITHOUT_A_PLUGIN)
    return f"{wanted}; none is known yet" if known else f"{wanted}; drupe plugins lists those installed"
