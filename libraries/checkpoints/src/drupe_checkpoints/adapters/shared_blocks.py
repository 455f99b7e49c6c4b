"""Adapters of blocks that several layers share, as in Zamba 2.

transformers 5 has a module for each use of such a block, with the same tensors. peft gives each of them an adapter of
its own, so with the adapter the uses differ. (peft's merging then adds all changes to the tensors that they share:
another computation.) With such an adapter, each use gets tensors of its own here: `num_mem_blocks` counts as many
blocks as there are uses. In transformers 4 the uses were one module, whose adapter is named by the first of them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping

from drupe.api import replace
from drupe_checkpoints.adapters.tensors import AdapterTensors
from drupe_checkpoints.configuration import Configuration
from drupe_onnx import Expression

BLOCKS = "num_mem_blocks"
"""The key that says how many blocks there are; the layers use them in turn."""
TYPES, HYBRID = ("layers_block_type", "layer_types"), "hybrid"
SHARING = ("zamba2",)
_SHARED = re.compile(r"(?P<at>(?:.*\.)?layers\.)(?P<layer>\d+)\.shared_transformer\.(?P<rest>.*)")
_OF_USE = re.compile(r".*_adapter_list\.(\d+)\..*")
"""The small matrices that the checkpoint itself has for each use, by the number of the use."""


def with_own_blocks(config: Configuration, adapters: Iterable[AdapterTensors]) -> Configuration:
    """The configuration in which each use of a block has its own, where an adapter changes the uses one by one."""
    layers = _using(config)
    count = _blocks(config)
    later = {str(layer) for layer in layers[count:]}
    if not any(_layer_of(module) in later for adapter in adapters for module in (*adapter.changes, *adapter.whole)):
        return config
    return config.with_values({BLOCKS: len(layers)})


def has_own_blocks(config: Configuration) -> bool:
    """Whether each use of a block has its own."""
    layers = _using(config)
    return bool(layers) and _blocks(config) == len(layers)


def unshared(config: Configuration, tensors: Mapping[str, Expression]) -> Mapping[str, Expression]:
    """The tensors, where each use has a block of its own: those of the block that it uses, once for each use.

    A tensor stays one and the same as long as no adapter changes it, so it is stored once.
    """
    if not has_own_blocks(config):
        return tensors
    layers = _using(config)
    found: dict[str, Expression] = {}
    blocks: dict[int, list[tuple[str, str, Expression]]] = {}
    for name, tensor in tensors.items():
        if (shared := _SHARED.fullmatch(name)) is None:
            found[name] = tensor
        else:
            blocks.setdefault(int(shared["layer"]), []).append((shared["at"], shared["rest"], tensor))
    for use, layer in enumerate(layers):
        for at, rest, tensor in blocks.get(_source(use, layer, blocks), ()):
            if _use_of(rest) in (None, use):
                found[f"{at}{layer}.shared_transformer.{rest}"] = copy.copy(tensor)  # names are told apart by objects
    return found


def of_uses(config: Configuration, adapter: AdapterTensors) -> AdapterTensors:
    """The adapter without changes of small matrices that the module of one use has for another: nothing runs them."""
    if not has_own_blocks(config):
        return adapter
    layers = [str(layer) for layer in _using(config)]

    def is_run(module: str) -> bool:
        shared = _SHARED.fullmatch(module)
        use = None if shared is None else _use_of(f"{shared['rest']}.")
        return shared is None or use is None or (use < len(layers) and layers[use] == shared["layer"])

    return replace(adapter, changes={module: parts for module, parts in adapter.changes.items() if is_run(module)})


def _using(config: Configuration) -> list[int]:
    """The layers that use a shared block; none for models without such blocks."""
    if config.text("model_type", "") not in SHARING:
        return []
    key = next((each for each in TYPES if config.get(each) is not None), TYPES[0])
    return [layer for layer, kind in enumerate(config.texts(key)) if kind == HYBRID]


def _blocks(config: Configuration) -> int:
    return config.integer(BLOCKS, 1)


def _source(use: int, layer: int, blocks: Mapping[int, list[tuple[str, str, Expression]]]) -> int:
    """The layer with the tensors that a use reads: the first one that has the small matrices of this use."""
    holding = (each for each, held in blocks.items() if any(_use_of(rest) == use for _, rest, _ in held))
    return min(holding, default=layer)


def _layer_of(module: str) -> str | None:
    """The layer whose shared block a module lies in."""
    shared = _SHARED.fullmatch(module)
    return None if shared is None else shared["layer"]


def _use_of(rest: str) -> int | None:
    """The use that a small matrix is for; None for what all uses share."""
    found = _OF_USE.fullmatch(rest)
    return None if found is None else int(found[1])
