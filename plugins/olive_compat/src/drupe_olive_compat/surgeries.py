"""Olive's graph surgeries: what becomes of each, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drupe_olive_compat.answers import Answer, kept, left_out, missing
from drupe_olive_compat.chain import Chain
from drupe_olive_compat.components import Component
from drupe_olive_compat.options import EXTERNAL, sets
from drupe_olive_compat.values import a_list

BY_OLIVE = "run the pass alone with olive run-pass, and name the graph that it makes with --model"
_NOT_THERE = left_out("nothing of this kind is in a graph that Drupe builds")
_UNIQUE = left_out("every name is defined once in a graph that Drupe builds")

BUILT: Mapping[str, Answer] = {
    "tiewordembeddings": kept("where the checkpoint ties embedding and head, they are stored once"),
    "quantizeembeddingint8": kept("embedding and head get 8 bits"),
    "shareembeddinglmhead": kept("where the checkpoint ties embedding and head, they are stored once"),
    "gemmtomatmuladd": _NOT_THERE,
    "reciprocalmultodiv": _NOT_THERE,
    "removememcpy": _NOT_THERE,
    "packedattentiontoloopmha": _NOT_THERE,
    "packedattentiontopackedmha": _NOT_THERE,
    "removegidxfrommatmulnbits": _NOT_THERE,
    "deduplicatenodes": _UNIQUE,
    "deduplicatesubgraphinitializers": _UNIQUE,
    "infershapes": left_out("every value of a package has its type and shape"),
}
"""Of a graph that Drupe builds, by name in lower case."""
GRAPHS: Mapping[str, Answer] = {
    "tiewordembeddings": kept("equal weights are stored once"),
    "infershapes": left_out("types and shapes are inferred where they are not stated"),
}
"""Of an ONNX graph that the file names."""
_NAMED_8_BITS = "quantizeembeddingint8"


def say_surgeries(chain: Chain, part: Component) -> None:
    """A line for each surgery, and for what else the pass is told."""
    surgeries = a_list(part.options.get("surgeries"), part.at("surgeries"))
    if not surgeries:
        chain.ledger.say(part.at("surgeries"), left_out("no surgery is named"))
    for number, surgery in enumerate(surgeries):
        name = str(surgery.get("surgeon", "") if isinstance(surgery, Mapping) else surgery)
        place = part.at(f"surgeries.{number} ({name})")
        known = GRAPHS if chain.is_graph else BUILT
        if name.casefold() == _NAMED_8_BITS and not chain.is_graph:
            sets("head_bits")(chain, 8, place)
        chain.ledger.say(place, known.get(name.casefold(), missing(f"the surgery {name}", BY_OLIVE)))
    for option, value in part.options.items():
        if option in EXTERNAL:
            chain.ledger.say(part.at(option), EXTERNAL[option](chain, value, part.at(option)))
        elif option != "surgeries":
            chain.ledger.say(part.at(option), _merging(value))


def _merging(value: Any) -> Answer:
    """`remove_duplicate_initializers`, the pass's one other option."""
    return kept("equal weights are stored once") if value else left_out("equal weights are stored once all the same")
