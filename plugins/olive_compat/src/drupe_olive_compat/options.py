"""What is done about an option of a pass: each function gives such a treatment for the tables of passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from drupe.api import UsageError, registry
from drupe_olive_compat.answers import OFF, Answer, changed, is_off, kept, left_out, missing
from drupe_olive_compat.chain import BLOCK_SIZES, WITH_THE_BITS, Chain

Saying = Callable[[Chain, Any, str], Answer]
Treatment = Callable[[Chain, Any, str], Answer | None]
"""A function of the chain, the option's value and its place, which may change the chain.

None: the answer depends on other options too, and the effect of the pass's rule gives it.
"""
SEARCHABLE = "SEARCHABLE_VALUES"
DEFAULTS = ("DEFAULT_VALUE", SEARCHABLE)
"""Olive's words for a pass's default, and for the values that a search tries."""
CAPTURE = "cuda_graph"
"""The setting of a session that replays a captured graph."""
DEPTHS: Mapping[str, int] = {"int4": 4, "uint4": 4, "int8": 8, "uint8": 8}


def declares(chain: Chain, setting: str) -> bool:
    """Whether the target's provider declares a setting of its sessions, for tune-session."""
    provider = registry().provider(chain.provider) if chain.provider else None
    return any(each.name == setting for each in getattr(provider, "session_settings", tuple)())


def says(answer: Answer) -> Saying:
    """The same answer for every value."""
    return lambda chain, value, place: answer


def unless_off(answer: Answer) -> Saying:
    """The answer, where the option is not off."""
    return lambda chain, value, place: OFF if is_off(value) else answer


def sets(name: str) -> Saying:
    """Set an option of the workflow to the value."""

    def treat(chain: Chain, value: Any, place: str) -> Answer:
        if chain.mixed and name in WITH_THE_BITS:
            return changed(f"{name} is chosen for each matrix together with its bits")
        chain.options[name], chain.stated[name] = value, place
        return kept(f"{name}: {value!r}")

    return treat


def whole(value: Any, place: str) -> int:
    """A whole number. Raises UsageError for anything else."""
    is_one = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_one:
        raise UsageError(f"{value!r} does not fit: a whole number is wanted", where=place)
    return int(value)


def truth(value: Any, place: str) -> bool:
    """True or false. Raises UsageError for anything else."""
    if value not in (True, False):
        raise UsageError(f"{value!r} does not fit: true or false is wanted", where=place)
    return bool(value)


def number(value: Any, place: str) -> float:
    """A number. Raises UsageError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{value!r} does not fit: a number is wanted", where=place)
    return float(value)


def block_size(chain: Chain, value: Any, place: str) -> Answer:
    if isinstance(value, bool) or value not in BLOCK_SIZES:
        sizes = ", ".join(map(str, BLOCK_SIZES))
        return changed(f"blocks of {value!r} are not stored, only those of {sizes}; Drupe chooses the size")
    return sets("block_size")(chain, int(value), place)


def bits(chain: Chain, value: Any, place: str) -> Answer:
    """Bits of the weights. The first pass that quantizes decides; a later one completes it."""
    if value not in (4, 8):
        return missing(f"weights of {value!r} bits", "4 or 8 bits")
    value = int(value)
    if chain.bits and chain.bits != value:
        return kept(f"{value} bits for what is not quantized yet: embedding and head")
    chain.bits = value
    return kept(f"weights of {chain.bits} bits")


def symmetric(chain: Chain, value: Any, place: str) -> Answer:
    return sets("symmetric")(chain, truth(value, place), place)


def accuracy_level(chain: Chain, value: Any, place: str) -> Answer:
    if value in (None, 0):
        return kept("the level that the target's kernels are fast with")
    chain.accuracy_level = whole(value, place)
    return kept(f"accuracy_level of MatMulNBits: {value}")


def damping(chain: Chain, value: Any, place: str) -> Answer:
    chain.damping = number(value, place)
    return kept(f"damping of quantize-gptq: {value}")


def head(chain: Chain, value: Any, place: str) -> Answer:
    """Whether the head is quantized too."""
    if value:
        return kept("the head is quantized")
    return changed("the head is quantized as well, at 8 bits unless the file says more")


def embedding(chain: Chain, value: Any, place: str) -> Answer:
    if value:
        return kept("the embedding is quantized")
    return changed("the embedding is quantized as well, at 8 bits unless the file says more")


def overrides(chain: Chain, value: Any, place: str) -> Answer:
    """Bits of single modules: those of head and embedding are an option, others are not."""
    named = value if isinstance(value, Mapping) else {}
    ends = {name: each for name, each in named.items() if name.endswith(("lm_head", "embed_tokens"))}
    depths = [each.get("bits") for each in ends.values() if isinstance(each, Mapping)]
    if len(ends) < len(named) or not depths or any(each not in (2, 4, 8) or each != depths[0] for each in depths):
        chain.mixed = True
        return changed("which matrices get more bits is decided by what they lose, not by their names")
    return sets("head_bits")(chain, depths[0], place)


_DATA_FILE = left_out("the weights always lie in model.onnx.data, beside the graph")
EXTERNAL: Mapping[str, Saying] = {
    name: says(_DATA_FILE)
    for name in (
        "save_as_external_data", "all_tensors_to_one_file", "external_data_name", "size_threshold", "convert_attribute",
    )
}  # fmt: skip
"""EXT in Olive's passes: how the weights are written."""
_NODES = missing("choosing matrices by their names in Olive's graph", "leave it out: all matrices are quantized")
NODES: Mapping[str, Treatment] = {"nodes_to_exclude": unless_off(_NODES), "nodes_to_include": unless_off(_NODES)}
MODULES: Mapping[str, Treatment] = {
    "bits": bits,
    "group_size": block_size,
    "sym": symmetric,
    "lm_head": head,
    "embeds": embedding,
    "overrides": overrides,
    "quantize_vision": unless_off(left_out("there is no tower for images in a package")),
    "moe": says(left_out("experts are quantized where the target's operator takes them")),
    "modules_to_not_convert": unless_off(
        missing("keeping single modules in floating point", "leave it out: bits_per_weight gives sensitive ones more")
    ),
}
"""QPT in Olive's passes: what quantizing a checkpoint can be told."""
