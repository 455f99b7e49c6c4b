"""Adapters that a graph takes as optional inputs: which weights they add to, and the files with their matrices."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from drupe.api import ModelError, Record, replace
from drupe_checkpoints import Checkpoint
from drupe_checkpoints.adapters.merging import places_of
from drupe_checkpoints.adapters.shared_blocks import of_uses
from drupe_checkpoints.adapters.switched import SwitchedAdapter, matrices_of, switchable
from drupe_checkpoints.adapters.tensors import AdapterTensors
from drupe_checkpoints.wording import listed
from drupe_model_builder.checkpoint_tensors import DecoderWeights
from drupe_onnx import element_name
from drupe_onnx.adapter_files import write_adapter
from drupe_onnx.switching import ADAPTERS, FOLDER, SUFFIX, AdaptedProduct, Switching

if TYPE_CHECKING:
    from drupe_onnx import ir


class PlacedAdapter(Record):
    """An adapter with the checkpoint's tensors that it adds to, by its own names."""

    adapter: SwitchedAdapter
    tensors: AdapterTensors
    places: Mapping[str, str]


class SwitchedAdapters(Record):
    """The adapters beside a checkpoint. weights: its tensors by the decoder's names."""

    adapters: tuple[PlacedAdapter, ...]
    weights: DecoderWeights

    @classmethod
    def of(cls, checkpoint: Checkpoint, weights: DecoderWeights) -> SwitchedAdapters:
        """Raises ModelError for an adapter that cannot be switched, or is for another base model."""
        if checkpoint.switched and weights.decoder.head is None:
            raise ModelError(
                "adapters are switched in models that generate text, and this one gives embeddings",
                where=checkpoint.folder,
                cure="merge one into the base model: --adapter DIR",
            )
        shapes = {name: tuple(weights.tensors[own].shape) for own, name in weights.stored.items()}
        head = None if weights.decoder.head is None else weights.stored.get(weights.decoder.embedding.table)
        return cls(
            tuple(_placed(each, checkpoint, shapes, head) for each in checkpoint.switched),
            weights,
        )

    @property
    def adapted(self) -> frozenset[str]:
        """The decoder's names of the weights that adapters add to."""
        wanted = {place for each in self.adapters for place in each.places.values()}
        return frozenset(own for own, name in self.weights.stored.items() if name in wanted)

    def files(self, products: Iterable[AdaptedProduct], dtype: ir.DataType, folder: Path) -> dict[str, Path | bytes]:
        """The files for a package; those with matrices are written into `folder`.

        products: those that the graph adds to, with the decoder's names. Raises ModelError where an adapter changes
        something that is not among them.
        """
        if not self.adapters:
            return {}
        stored = self.weights.stored
        named = tuple(replace(each, tensor=stored[each.tensor]) for each in products if each.tensor in stored)
        held = {each.tensor for each in named}
        files: dict[str, Path | bytes] = {}
        for each in self.adapters:
            _refuse_others(each, held)
            path = folder / f"{each.adapter.name}{SUFFIX}"
            write_adapter(path, matrices_of(each.tensors, named, dtype, each.places))
            files[f"{FOLDER}/{path.name}"] = path
        adapters = {each.adapter.name: f"{FOLDER}/{each.adapter.name}{SUFFIX}" for each in self.adapters}
        sources = {each.adapter.name: str(each.adapter.folder) for each in self.adapters}
        return {**files, ADAPTERS: Switching(element_name(dtype), named, adapters, sources).content()}


def _placed(
    adapter: SwitchedAdapter, checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]], head: str | None
) -> PlacedAdapter:
    tensors = of_uses(checkpoint.config, switchable(adapter))
    return PlacedAdapter(adapter, tensors, places_of(tensors, shapes, head))


def _refuse_others(placed: PlacedAdapter, held: Collection[str]) -> None:
    others = [name for name, place in placed.places.items() if place not in held]
    if others:
        raise ModelError(
            f"the adapter {placed.adapter.name} cannot be switched at run time: it changes "
            f"{listed([name.removesuffix('.weight') for name in others], 3)}, which the graph does not use as a plain "
            "product (embeddings, heads, routers and experts are such modules)",
            where=placed.adapter.folder,
            cure=f"merge it into the base model: drupe optimize MODEL --adapter {placed.adapter.folder}",
        )
