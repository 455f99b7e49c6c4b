"""The options of Olive's passes that quantize: what is done about each, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe_olive_compat.answers import OFF, Answer, changed, is_off, kept, left_out, missing
from drupe_olive_compat.calibrating_data import calibration
from drupe_olive_compat.chain import Chain
from drupe_olive_compat.options import (
    EXTERNAL,
    MODULES,
    NODES,
    Treatment,
    accuracy_level,
    bits,
    block_size,
    damping,
    says,
    symmetric,
    truth,
    unless_off,
    whole,
)


def _rotation(chain: Chain, value: Any, place: str) -> Answer:
    if not value:
        return OFF
    chain.prepare("rotate")
    return changed("the hidden states are rotated (rotate-weights)")


def _by_node(chain: Chain, value: Any, place: str) -> Answer:
    """Bits of single nodes by their names in Olive's graph."""
    chain.mixed = chain.mixed or bool(value)
    return changed("which matrices get 8 bits is decided by what they lose, not by their names")


_ORDER = says(kept("group by group, each on the inputs that it will have, with scales that are fixed beforehand"))
_AXIS = says(left_out("blocks lie along the inputs of a matrix, as MatMulNBits has them"))
CALIBRATED: Mapping[str, Treatment] = {
    **MODULES,
    "data_config": calibration,
    "damp_percent": damping,
    "desc_act": unless_off(left_out("columns keep their order, so that kernels need no g_idx")),
    "moe_fallback_threshold": says(left_out("experts are quantized by an error search, without the text")),
    "moe_fallback_min_k_multiple": says(left_out("experts are quantized by an error search, without the text")),
}
OTHERS_CALIBRATED: Mapping[str, Treatment] = {
    **CALIBRATED,
    "damp_auto_increment": says(left_out("damping is not raised")),
    "static_groups": _ORDER,
    "true_sequential": _ORDER,
    "mse": says(left_out("scales are found by an error search")),
    "device": says(left_out("calibrated on the processor")),
    "dynamic": unless_off(missing("other settings for modules by name", "leave it out")),
    "rotation": _rotation,
    "layers_block_name": says(left_out("the layers are known from the checkpoint's family")),
    "outside_layer_modules": says(left_out("the layers are known from the checkpoint's family")),
    "inside_layer_modules": says(left_out("the layers are known from the checkpoint's family")),
}
AWQ: Mapping[str, Treatment] = {
    "q_group_size": block_size,
    "bits": bits,
    "zero_point": lambda chain, value, place: symmetric(chain, not truth(value, place), place),
    "data_config": calibration,
    "input_model_dtype": says(left_out("weights are read in the checkpoint's own type")),
    "version": says(left_out("the format of another kernel")),
    "duo_scaling": says(left_out("how factors are found is the pass's own")),
    "export_compatible": says(left_out("factors go into the weights")),
    "modules_to_not_convert": MODULES["modules_to_not_convert"],
}
ON_GRAPHS: Mapping[str, Treatment] = {
    **EXTERNAL,
    **NODES,
    "bits": bits,
    "block_size": block_size,
    "is_symmetric": symmetric,
    "accuracy_level": accuracy_level,
    "axis": _AXIS,
}
MIXED: Mapping[str, Treatment] = {
    **MODULES,
    "algorithm": says(changed("Drupe measures how much each matrix loses (measure-sensitivity)")),
    "high_bits": lambda chain, value, place: (
        kept("8 bits for the sensitive matrices")
        if value == 8
        else changed("8 bits are the most that a quantized matrix gets")
    ),
    "high_group_size": says(changed("blocks are chosen for each matrix")),
    "high_sym": says(changed("all matrices are symmetric, or none")),
    "ratio": lambda chain, value, place: None,
    "group_size": says(changed("block_size is chosen for each matrix together with its bits")),
    "kld_memory_mode": says(left_out("measured in bounded memory")),
}


_BY_SEARCH = says(left_out("the search has no such limit"))
CLIPPING: Mapping[str, Treatment] = {
    **MODULES,
    "data_config": unless_off(left_out("the search needs no text")),
    **dict.fromkeys(("n_grid", "max_shrink", "n_sample_token"), _BY_SEARCH),
}
KQUANT: Mapping[str, Treatment] = {**ON_GRAPHS, "customized_weight_config": _by_node}


def _seed(chain: Chain, value: Any, place: str) -> Answer:
    chain.settings.setdefault("rotate-weights", {})["seed"] = whole(value, place)
    return kept(f"seed of rotate-weights: {value}")


def _mode(chain: Chain, value: Any, place: str) -> Answer:
    return (
        kept("a Hadamard rotation with random signs")
        if value == "hadamard"
        else changed("a Hadamard rotation with random signs")
    )


_NOT_TRAINED = says(changed("the rotation is not trained, and activations are not quantized for it"))
ROTATION: Mapping[str, Treatment] = {
    "seed": _seed,
    "rotate_mode": _mode,
    **dict.fromkeys(("a_bits", "a_symmetric", "a_per_token", "training_args"), _NOT_TRAINED),
}
_OWN_SCALES = says(left_out("every block of weights has a scale of its own"))
_NODES = unless_off(missing("choosing nodes of a graph", "leave it out: all matrices are quantized"))
DYNAMIC: Mapping[str, Treatment] = {
    **EXTERNAL,
    **dict.fromkeys(("precision", "quant_mode", "per_channel", "reduce_range", "quant_preprocess"), _OWN_SCALES),
    **dict.fromkeys(("activation_symmetric", "weight_symmetric", "weight_type", "extra_options"), _OWN_SCALES),
    **dict.fromkeys(("op_types_to_quantize", "op_types_to_exclude", "nodes_to_quantize", "nodes_to_exclude"), _NODES),
}


def _by_operator(chain: Chain, value: Any, place: str) -> Answer:
    """Operators and nodes that stay float32, or are all that becomes float16."""
    if is_off(value):
        return OFF
    if chain.is_graph:
        return missing("float16 for some operators of a graph", "leave it out: the target's table decides")
    return left_out("the target's table of operators says what is computed in float32")


HALF: Mapping[str, Treatment] = {
    **EXTERNAL,
    **dict.fromkeys(("op_block_list", "op_include_list", "node_block_list", "node_include_list"), _by_operator),
    "keep_io_types": says(left_out("inputs and outputs have the types that the runtime expects; logits are float32")),
    "min_positive_val": says(left_out("values are rounded to the nearest of float16")),
    "max_finite_val": says(left_out("values are rounded to the nearest of float16")),
    "use_symbolic_shape_infer": says(left_out("types and shapes are inferred where they are not stated")),
}
_RECORD = says(left_out("drupe.json, beside the graph, has the record"))
RECORD: Mapping[str, Treatment] = dict.fromkeys(("graph_name", "custom_metadata", "add_optimization_info"), _RECORD)
