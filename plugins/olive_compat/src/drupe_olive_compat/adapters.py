"""Olive's passes on adapters that are there: merged into the weights, or kept beside the base model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe_olive_compat.answers import Answer, changed, kept, left_out, missing
from drupe_olive_compat.chain import Chain
from drupe_olive_compat.components import Component
from drupe_olive_compat.options import EXTERNAL, Treatment

SWITCHED = "lora"
"""The type of an adapter that can be switched at run time."""
TWO_STEPS = (
    "drupe finetune MODEL --data DATA -o ADAPTER, then drupe optimize MODEL --adapters ADAPTER -o OUT; or leave "
    "ExtractAdapters out, and the adapter is merged"
)


def merging(chain: Chain, part: Component) -> None:
    """MergeAdapterWeights: an adapter of the model is merged, and none is left to be kept beside it."""
    chain.merged = True


def extracting(chain: Chain, part: Component) -> None:
    """ExtractAdapters: the adapter of the model stays beside it."""
    kind = str(part.options.get("adapter_type") or SWITCHED)
    has_one = bool(chain.source.adapter) and not chain.merged
    if kind != SWITCHED and (chain.trains or has_one):
        what = f"adapters of the type {kind} are not switched at run time: this one is merged into the weights"
        chain.ledger.instead(part.title, changed(what))
    elif chain.trains:
        what = "keeping an adapter beside the base model that the same file trains"
        chain.ledger.instead(part.title, missing(what, TWO_STEPS))
    elif has_one:
        chain.switches = True
    else:
        chain.ledger.instead(part.title, left_out("the model has no adapter beside its weights"))


def _format(chain: Chain, value: Any, place: str) -> Answer:
    file = "an .onnx_adapter file, which onnxruntime loads"
    return kept(file) if value == "onnx_adapter" else changed(file)


_INPUTS = "matrices are optional inputs of any rank; without an adapter, they have the rank 0"
EXTRACTED: Mapping[str, Treatment] = {
    **EXTERNAL,
    "adapter_type": lambda chain, value, place: (
        kept("LoRA") if value in (None, SWITCHED) else changed(f"an adapter of the type {value} is merged")
    ),
    **dict.fromkeys(
        ("make_inputs", "dynamic_lora_r", "optional_inputs"),
        lambda chain, value, place: kept(_INPUTS) if value else changed(_INPUTS),
    ),
    "save_format": _format,
}
