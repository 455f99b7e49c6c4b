"""The options of ModelBuilder, and of the passes that export: what is done about each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe.api import registry
from drupe_olive_compat.answers import OFF, Answer, changed, is_off, kept, left_out, missing
from drupe_olive_compat.chain import Chain
from drupe_olive_compat.options import (
    CAPTURE,
    DEPTHS,
    EXTERNAL,
    Treatment,
    accuracy_level,
    block_size,
    declares,
    says,
    symmetric,
    unless_off,
    whole,
)
from drupe_olive_compat.sources import EMBEDDINGS

FLOATS: Mapping[str, str] = {
    "fp16": "fp16", "float16": "fp16", "bf16": "bf16", "bfloat16": "bf16", "fp32": "fp32", "float32": "fp32",
}  # fmt: skip
NO_COMPONENTS = "a part of a model for more than text, which takes embeddings that other parts make"
WHOLE_TEXT = "drupe optimize MODEL -o OUT packages its text model alone, for prompts of text"


def precision(chain: Chain, value: Any, place: str) -> Answer:
    """The type of the weights. Where a pass before has quantized them, its bits stand."""
    name = str(value).casefold()
    if name in FLOATS:
        return floating(chain, value, place)
    if chain.bits and name in ("int", *DEPTHS):
        return kept(f"weights of {chain.bits} bits, as the passes before it say")
    if name not in DEPTHS:
        return missing(f"the precision {value!r}", "int4, int8, fp16, bf16 or fp32")
    chain.bits = DEPTHS[name]
    if chain.bits == 8:
        return kept("weights of 8 bits, on every provider that has a recipe for them")
    return kept("weights of 4 bits; an error search finds them, unless the file names another algorithm")


def floating(chain: Chain, value: Any, place: str) -> Answer:
    """A floating-point type; some providers store it and compute in another."""
    name = FLOATS.get(str(value).casefold())
    if name is None:
        return changed(f"{value!r} is no type of a package; the precision decides")
    chain.precision = name
    if chain.bits:
        return left_out("the weights are quantized already, and the target's recipe says what is computed in")
    computed = _computed_in(chain.provider, name)
    if name != "fp32" and computed == "float32":
        return changed(f"weights in {name}, computed in float32: the target does not compute in {name}")
    return kept(f"weights in {name}")


def _computed_in(provider: str, precision: str) -> str:
    """What a provider's recipe for a precision computes in; "" where there is none."""
    recipes = registry().provider(provider).recipes() if provider else ()
    stages = next((recipe.stages for recipe in recipes if recipe.precision == precision), ())
    found = (getattr(stage, "numerics", {}).get("activations") for stage in stages)
    return next((str(each) for each in found if each), "")


def algorithm(chain: Chain, value: Any, place: str) -> Answer:
    """`int4_algo_config`: how the builder finds weights of 4 bits."""
    name = str(value)
    if chain.calibrates:
        return left_out("the passes before it have quantized the weights")
    if name in ("default", "rtn"):
        chain.options["quality"] = "fast"
        return kept("rounded to nearest")
    if name == "k_quant_last":
        chain.options |= {"quality": "fast", "method": "search", "head_bits": 8}
        return kept("an error search, with 8 bits for the head")
    if name.startswith("k_quant"):
        chain.mixed = True
        return changed("an error search; which matrices get 8 bits is decided by what they lose")
    return missing(f"the algorithm {name}", "rtn, k_quant_last or k_quant_mixed")


def _hidden_states(chain: Chain, value: Any, place: str) -> Answer:
    if not value:
        return OFF
    if chain.source.task == EMBEDDINGS:
        return changed("the package of an embedding model gives last_hidden_state and sentence_embedding")
    return missing("hidden states as an output of a decoder", "an embedding model's checkpoint, or leave it out")


def _embeddings(chain: Chain, value: Any, place: str) -> Answer:
    if value:
        return missing(f"a decoder without its embedding: {NO_COMPONENTS}", WHOLE_TEXT)
    return kept("the package takes token ids")


def _op_types(chain: Chain, value: Any, place: str) -> Answer:
    return changed(
        "all matrices are quantized, embedding and head included; these two at 8 bits unless the file says more"
    )


def _room(chain: Chain, value: Any, place: str) -> Answer:
    chain.settings.setdefault("package-genai", {})["max_length"] = whole(value, place)
    return kept(f"room for {value} tokens")


def _cuda_graph(chain: Chain, value: Any, place: str) -> Answer:
    if is_off(value):
        return OFF
    cure = f'drupe tune-session OUT --set \'values={{"{CAPTURE}": ["on"]}}\''
    return left_out("a setting of the session, which packages leave off", cure if declares(chain, CAPTURE) else "")


_SEARCHING = says(left_out("how text is generated is in the checkpoint's generation_config.json, which is kept"))

BUILDER: Mapping[str, Treatment] = {
    "precision": precision,
    "metadata_only": says(kept("genai_config.json and the tokenizer are part of every package")),
    "int4_accuracy_level": accuracy_level,
    "int4_block_size": block_size,
    "int4_is_symmetric": symmetric,
    "int4_op_types_to_quantize": _op_types,
    "int4_nodes_to_exclude": unless_off(missing("matrices by their names in the graph", "leave it out")),
    "int4_algo_config": algorithm,
    "use_qdq": unless_off(missing("quantized weights as DequantizeLinear", "leave it out")),
    "use_8bits_moe": says(left_out("experts get the bits that the target's operator takes")),
    "use_webgpu_fp32": says(left_out("the target's recipe says what is computed in")),
    "use_cuda_bf16": says(left_out("the target's recipe says what is computed in")),
    "include_hidden_states": _hidden_states,
    "exclude_embeds": _embeddings,
    "exclude_lm_head": unless_off(missing("a decoder without its head", "an embedding model's checkpoint has none")),
    "enable_cuda_graph": _cuda_graph,
    "prune_lm_head": says(kept("logits of the last token alone, which is what generating needs")),
    "filename": says(left_out("the graph is called model.onnx")),
    "quant_mode": says(left_out("Olive's builder has no such option either")),
    "search.max_length": _room,
    "search.min_length": _SEARCHING,
}
"""`extra_options` has the same names; those of `search` stand with its name."""

_NOTHING_IS_TRACED = says(left_out("nothing is traced: the graph is built from the checkpoint's configuration"))
EXPORTING: Mapping[str, Treatment] = {
    **EXTERNAL,
    "precision": precision,
    "torch_dtype": floating,
    "fp16": lambda chain, value, place: floating(chain, "fp16", place) if value else OFF,
    "target_opset": says(left_out("the target's kernels decide on the opset")),
    "use_dynamo_exporter": _NOTHING_IS_TRACED,
    "past_key_value_name": says(left_out("caches have the names that onnxruntime-genai expects")),
    "device": _NOTHING_IS_TRACED,
    "parallel_jobs": _NOTHING_IS_TRACED,
    "optimize": says(left_out("the graph is built of fused operators")),
    "dynamic": lambda chain, value, place: (
        kept("sizes stay open")
        if value
        else missing("a graph of fixed sizes", "leave it out: a decoder has open sizes")
    ),
    "merge_adapter_weights": unless_off(missing("merging an adapter here", "leave it out: input_model merges its own")),
    "save_metadata_for_token_generation": says(kept("the package has what generating needs")),
    "user_script": says(missing("a Python file, which Drupe does not run", "leave it out")),
    "script_dir": says(missing("a Python file, which Drupe does not run", "leave it out")),
    "components": unless_off(missing("components of a model", "name a checkpoint that is a decoder as a whole")),
    "components_to_export": unless_off(missing("components beside the decoder", WHOLE_TEXT)),
    "runtime": says(left_out("Olive's pass has no such option either")),
    "extra_args": unless_off(left_out("arguments of another exporter")),
}
