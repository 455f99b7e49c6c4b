"""Olive's passes on adapters: merged into the weights, or kept beside the base model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from drupe_olive_compat.answers import Answer, changed, kept, left_out
from drupe_olive_compat.chain import Chain
from drupe_olive_compat.components import Component
from drupe_olive_compat.options import EXTERNAL, Treatment
from drupe_olive_compat.training import BESIDE, FINETUNE, KEEP

SWITCHED = "lora"
"""The type of an adapter that can be switched at run time."""
NAME = "adapter"
"""What an adapter is called in a package that the same file trains."""


def merging(chain: Chain, part: Component) -> None:
    """MergeAdapterWeights: an adapter of the model is merged, and none is left to be kept beside it."""
    chain.merged = True


def extracting(chain: Chain, part: Component) -> None:
    """ExtractAdapters: the adapter of the model, or the one that the file trains, stays beside it."""
    kind = str(part.options.get("adapter_type") or SWITCHED)
    has_one = bool(chain.source.adapter or chain.trains) and not chain.merged
    if kind != SWITCHED and has_one:
        what = f"adapters of the type {kind} are not switched at run time: this one is merged into the weights"
        chain.ledger.instead(part.title, changed(what))
    elif chain.trains and has_one:
        _keep_trained(chain, part)
    elif has_one:
        chain.switches = True
    else:
        chain.ledger.instead(part.title, left_out("the model has no adapter beside its weights"))


def _keep_trained(chain: Chain, part: Component) -> None:
    """Have the adapter that the file trains stay beside the base model; one of another kind than LoRA is merged."""
    settings = chain.settings[FINETUNE]
    if reason := next((why for fits, why in _NOT_SWITCHED if fits(settings)), ""):
        chain.ledger.instead(part.title, changed(f"{reason}: it is merged into the weights"))
        return
    chain.settings[BESIDE] = chain.settings.pop(FINETUNE)
    chain.options[KEEP] = NAME
    what = f"an adapter is trained before all other passes ({BESIDE}), and stays beside the base model"
    chain.ledger.instead(chain.trains, kept(what))
    file = f"adapters/{NAME}.onnx_adapter"
    chain.ledger.instead(part.title, kept(f"{file}: drupe generate OUT --adapter {NAME} switches it on"))


_Settings = Mapping[str, Any]
_NOT_SWITCHED: Sequence[tuple[Callable[[_Settings], bool], str]] = (
    (lambda settings: settings["method"] not in ("lora", "qlora"), "the adapter that is trained is not plain LoRA"),
    (lambda settings: settings.get("init") == "loftq", "an adapter of LoftQ belongs to weights of its own"),
    (
        lambda settings: bool(settings.get("peft", {}).get("modules_to_save")),
        "modules_to_save trains modules as a whole, which are not switched at run time",
    ),
)
"""What tells that an adapter cannot stay beside its base model, by the settings of its training, and why."""


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
