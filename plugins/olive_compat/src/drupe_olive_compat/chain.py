"""Chain: what a file's passes ask for, gathered pass by pass, and what that is as a request of Drupe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from drupe.api import registry
from drupe_olive_compat.answers import Ledger, changed, left_out, missing
from drupe_olive_compat.sources import GRAPH, Source

BLOCK_SIZES = (16, 32, 64, 128, 256)
TAKEN: Mapping[str, tuple[str, ...]] = {
    "int4": ("quality", "method", "prepare", "block_size", "symmetric", "head_bits", "bits_per_weight",
             "calibration_data", "calibration_sequences", "calibration_length", "calibration_seed"),
    "int8": ("block_size", "symmetric", "head_bits"),
}  # fmt: skip
"""The options that have an effect where weights are quantized, by precision."""
ALWAYS = ("train_on", "keep_adapter")
"""The options that have an effect with every precision."""
HARMLESS: Mapping[str, tuple[str, ...]] = {"int8": ("quality",)}
"""Options that may stand there without effect, by precision; others are refused where they have none."""
FOR_FOUR_BITS = ("quality", "method", "bits_per_weight")
"""Options that no file states, so that nothing has to be said where they have no effect."""
WITH_THE_BITS = ("block_size", "head_bits")
"""Options that are chosen for each matrix, where matrices get different bits."""
_CALIBRATION = "calibration_"


@dataclass
class Chain:
    """What the passes so far ask for.

    exports: whether a pass makes an ONNX graph; always so where the source is one. precision: what a pass names, as a
    precision of Drupe. bits: of the weights that a pass quantizes, 0 for none. options, settings: those of a workflow.
    stated: where the file states an option. mixed: whether matrices get different bits. calibrates: whether weights
    are quantized by a text. read: the names of data configs that passes read. trains: the pass that trains the
    checkpoint, as lines name it; "" for none. merged: whether a pass merges the adapter that there is. switches:
    whether the adapter of the file's model stays beside it.
    """

    source: Source
    provider: str
    ledger: Ledger
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    exports: bool = False
    precision: str = ""
    bits: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    stated: dict[str, str] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    accuracy_level: int | None = None
    damping: float | None = None
    mixed: bool = False
    calibrates: bool = False
    read: set[str] = field(default_factory=set)
    trains: str = ""
    merged: bool = False
    switches: bool = False

    @property
    def is_graph(self) -> bool:
        return self.source.kind == GRAPH

    def prepare(self, how: str) -> None:
        """Have the weights changed before they are quantized."""
        self.options["prepare"] = [*self.options.get("prepare", []), how]


def request_of(chain: Chain) -> tuple[str, dict[str, Any], dict[str, dict[str, Any]]]:
    """Precision, options and settings of the workflow."""
    precision = _precision(chain)
    _settle_quality(chain, precision)
    options = _taken(chain, precision)
    quantizer = "quantize-gptq" if options.get("quality") == "best" else "quantize-weights"
    if chain.accuracy_level and precision in TAKEN:
        chain.settings.setdefault(quantizer, {})["accuracy_level"] = chain.accuracy_level
    if chain.damping is not None and quantizer == "quantize-gptq":
        chain.settings.setdefault(quantizer, {})["damping"] = chain.damping
    return precision, options, chain.settings


def _precision(chain: Chain) -> str:
    precision = {4: "int4", 8: "int8"}.get(chain.bits, chain.precision or "fp32")
    if chain.provider:
        known = [recipe.precision for recipe in registry().provider(chain.provider).recipes()]
        if precision not in known:
            what = f"the provider {chain.provider} has no recipe for {precision}"
            chain.ledger.say("passes", missing(what, f"a precision that it has: {', '.join(known)}"))
    return precision


def _settle_quality(chain: Chain, precision: str) -> None:
    """Options that follow from several passes together."""
    options = chain.options
    if precision != "int4":
        return
    if chain.calibrates:
        options["quality"] = "best"
        options.pop("method", None)
    elif chain.mixed:
        options["quality"] = "balanced"
        options.pop("method", None)
    if chain.mixed:
        for name in WITH_THE_BITS:
            if options.pop(name, None) is not None:
                what = f"{name} is chosen for each matrix together with its bits"
                chain.ledger.say(chain.stated.get(name, "passes"), changed(what))


def _taken(chain: Chain, precision: str) -> dict[str, Any]:
    """The options that have an effect with the precision."""
    taken: dict[str, Any] = {}
    for name, value in chain.options.items():
        calibration = name.startswith(_CALIBRATION) and not chain.calibrates
        if name in (*ALWAYS, *TAKEN.get(precision, ())) and not calibration:
            taken[name] = value
        elif name not in FOR_FOUR_BITS:
            what = f"{name} = {value!r} has no effect: the weights become {precision}"
            chain.ledger.say(chain.stated.get(name, "passes"), left_out(what))
    return taken
