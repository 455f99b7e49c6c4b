"""Adapters that stay beside their base model, so that a package can switch between them at run time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Model, ModelError, Notice, Record, UsageError, counted
from drupe_checkpoints.adapters.reference import (
    FACT,
    AdapterReference,
    Fetch,
    adapter_folder,
    adapters_of,
    as_fact,
    divided,
)
from drupe_checkpoints.wording import listed

if TYPE_CHECKING:
    from drupe_checkpoints.adapters.tensors import AdapterTensors
    from drupe_onnx import Expression, ir
    from drupe_onnx.switching import AdaptedProduct

SWITCHED = "switched adapters"
"""The fact that names the adapters that are switched, as JSON."""
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
"""What an adapter may be called: its name is that of a file."""
_BEFORE = re.compile(rf"(?P<before>(?:(?:/|[A-Za-z]:).*[/\\])?|/)(?P<name>{NAME})")
"""What may stand before "=": a name, and before that the working folder, where the whole was made an absolute path."""
OPTION, MERGED_OPTION = "adapters", "adapter"


class SwitchedAdapter(Record):
    """A folder with an adapter, and what it is called in a package."""

    name: str
    folder: Path

    @property
    def files(self) -> tuple[Path, Path]:
        """The files that the adapter consists of."""
        return AdapterReference(self.folder).files

    def __str__(self) -> str:
        return f"{self.name}={self.folder}"


def typed_switched(typed: Iterable[Path | str] | Path | str, fetch: Fetch) -> tuple[SwitchedAdapter, ...]:
    """The adapters that a user has named: NAME=DIR, or DIR, whose own name counts then. DIR may be a hub id.

    Raises UsageError for two of one name, ModelError where there is no adapter.
    """
    several = (typed,) if isinstance(typed, str | Path) else tuple(typed)
    found = tuple(_typed(str(each), fetch) for each in several)
    names = [each.name for each in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        folders = [str(each.folder) for each in found if each.name == twice]
        raise UsageError(
            f"--adapters gives the name {twice} to {listed(folders)}",
            cure=f"give one another: --adapters NAME={folders[-1]}",
        )
    return found


def _typed(text: str, fetch: Fetch) -> SwitchedAdapter:
    name, place = _divided(text)
    folder_of_it, weight = divided(place)
    if weight is not None:
        raise UsageError(
            f"--adapters takes no weight, and '{weight}' stands behind {folder_of_it}",
            cure=f"--adapters {name}={folder_of_it}; --adapter DIR:0.5 merges one with a weight",
        )
    folder = adapter_folder(place, fetch)
    if problem := name_problem(name):
        raise UsageError(problem, cure=f"give it one: --adapters NAME={place}")
    return SwitchedAdapter(name, folder)


def name_problem(name: str) -> str:
    """What is wrong with a name for an adapter; "" for a good one."""
    fits = re.fullmatch(NAME, name)
    return "" if fits else f"'{name}' cannot be an adapter's name: letters, digits, '.', '-' and '_' make one"


def _divided(text: str) -> tuple[str, str]:
    """The name and the folder, or the hub id, in NAME=DIR. Folders may have "=" in their names."""
    if Path(text).expanduser().exists():
        return Path(text).name, text
    parts = [(text[:at], text[at + 1 :]) for at, each in enumerate(text) if each == "=" and text[at + 1 :]]
    found = [(matched, rest) for before, rest in parts if (matched := _BEFORE.fullmatch(before))]
    named = [(each["name"], str(Path(each["before"]) / Path(rest).expanduser())) for each, rest in found]
    candidates = [*named, *parts]  # what has a name that cannot be one is refused for its name
    there = next((each for each in candidates if Path(each[1]).expanduser().exists()), None)
    return there or next(iter(candidates), (Path(text).name, text))


def as_switched_fact(adapters: Iterable[SwitchedAdapter]) -> Mapping[str, str]:
    """The facts of a model with these adapters beside it; none without adapters."""
    listed_ones = [[each.name, str(each.folder)] for each in adapters]
    return {SWITCHED: json.dumps(listed_ones)} if listed_ones else {}


def switched_of(model: Model) -> tuple[SwitchedAdapter, ...]:
    """The adapters beside a model, by its fact."""
    stated = next((facts[SWITCHED] for facts in model.parts.values() if SWITCHED in facts), "[]")
    return tuple(SwitchedAdapter(name, Path(folder)) for name, folder in json.loads(stated))


def with_one(model: Model, name: str | None) -> Model:
    """The model with one of the adapters beside it merged, and without the others. None: without all of them."""
    if not (beside := switched_of(model)):
        return model
    chosen = [AdapterReference(each.folder) for each in beside if each.name == name]
    merged = as_fact([*adapters_of(model), *chosen])
    parts = {
        role: {**{key: value for key, value in facts.items() if key not in (FACT, SWITCHED)}, **merged}
        for role, facts in model.parts.items()
    }
    return model.but(parts=parts, payload=None)


def options_with_one(options: Mapping[str, Any], folder: str | None) -> dict[str, Any]:
    """The options of a source, with one adapter merged in place of all those beside it. None: with none of them."""
    merged = options.get(MERGED_OPTION) or []
    others = {key: value for key, value in options.items() if key != OPTION}
    chosen = [*([merged] if isinstance(merged, str) else merged), *([folder] if folder else [])]
    return {**others, MERGED_OPTION: chosen}


def switchable(adapter: SwitchedAdapter) -> AdapterTensors:
    """The tensors of an adapter that can be switched. Raises ModelError for one that can be merged only, or not even.

    At run time, the products of two small matrices are added to products of the base model, and nothing else.
    """
    from drupe_checkpoints.adapters.tensors import AdapterTensors

    found = AdapterTensors.read(AdapterReference(adapter.folder))
    found.refuse_incomplete()
    if reason := _not_switched(found):
        raise ModelError(
            f"the adapter {adapter.name} cannot be switched at run time: {reason}",
            where=adapter.folder,
            cure=f"merge it into the base model: drupe optimize MODEL --adapter {adapter.folder}",
        )
    return found


def _not_switched(adapter: AdapterTensors) -> str:
    """Why an adapter can be merged only; "" for one of plain LoRA."""
    from drupe_checkpoints.adapters.experts import changes_experts

    title = adapter.config.title
    if title not in ("LoRA", "rsLoRA"):
        return f"it is of {title}, which changes the base model's matrices as a whole"
    for module, parts in adapter.changes.items():
        if "lora_B.bias" in parts:
            return f"it adds to the bias of {module}"
        if "lora_embedding_A" in parts:
            return f"it changes the embedding {module}"
    if experts := changes_experts(adapter):
        return f"it changes the experts {listed(experts, 3)}, which one operator computes together"
    if adapter.whole:
        return f"it replaces {listed(sorted(adapter.whole))} of the base model"
    if adapter.tokens:
        return f"it trains tokens of {listed(sorted(adapter.tokens))}"
    return ""


def matrices_of(
    adapter: AdapterTensors,
    products: Iterable[AdaptedProduct],
    element: ir.DataType,
    places: Mapping[str, str],
) -> dict[str, Expression]:
    """The values of the optional inputs of a graph: A as [inputs, rank], and B, scaled, as [rank, outputs].

    products: those of the graph. places: the checkpoint's tensors by the adapter's names. Raises ModelError for an
    adapter that does not fit, and names the first tensor that does not.
    """
    from drupe_checkpoints.adapters.changes import refuse_misfit
    from drupe_onnx import Affine, Transpose, as_type, ir

    products = tuple(products)
    found: dict[str, Expression] = {}
    for module, parts in adapter.changes.items():
        for product in (each for each in products if each.tensor == places[f"{module}.weight"]):
            refuse_misfit(adapter, module, product.shape, transposed=product.transposed)
            outward = _chosen(parts["lora_B"], product)
            scaled = Affine(as_type(outward, ir.DataType.FLOAT), adapter.config.scale_of(module))
            found[product.inward] = as_type(Transpose(parts["lora_A"]), element)
            found[product.outward] = as_type(Transpose(scaled), element)
    return found


def places_in_package(adapter: AdapterTensors, products: Iterable[AdaptedProduct]) -> dict[str, str]:
    """The tensors of a package's base model by an adapter's names. Raises ModelError where it has no place for one."""
    from drupe_checkpoints.adapters.places import Places

    places = Places({each.tensor: each.shape for each in products})
    places.find({f"{module}.weight": None for module in adapter.changes})
    lacking = [module for module in adapter.changes if f"{module}.weight" not in places.names]
    if lacking:
        raise adapter.error(
            f"the package has no place for what the adapter adds to {listed(lacking)}: none of the adapters that it "
            "was made with changes that",
            "make the package again with this adapter too: drupe optimize MODEL -o OUT --adapters NAME=DIR",
        )
    return places.names


def _chosen(matrix: Expression, product: AdaptedProduct) -> Expression:
    """The rows of B that a product computes."""
    import numpy as np

    from drupe_onnx import Array, RowRange, Take

    if not product.rows:
        return matrix
    if len(product.rows) == 1:
        return RowRange(matrix, *product.rows[0])
    rows = np.concatenate([np.arange(first, last) for first, last in product.rows])
    return Take(matrix, Array(rows.astype(np.int64)))


def switched_notice(adapter: SwitchedAdapter, tensors: AdapterTensors) -> Notice:
    """What is to be known of an adapter beside its base model."""
    ranks = sorted({parts["lora_A"].shape[0] for parts in tensors.changes.values()})
    what = f"the {tensors.config.title} adapter {adapter.folder} is switched at run time as {adapter.name}"
    size = f"rank {' to '.join(map(str, dict.fromkeys((ranks[0], ranks[-1]))))}"
    return Notice("adapter", "switched", f"{what}: {size} in {counted(len(tensors.changes), 'module')}")
