"""Adapters of a package that are switched at run time: adapters.json, and the optional inputs that they give values to.

A graph has two optional inputs for each product that adapters add to: `NAME.lora_A.weight`, [inputs, rank], and
`NAME.lora_B.weight`, [rank, outputs]. Their defaults have the rank 0, so the graph is that of the base model. An
.onnx_adapter file gives values to them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import ModelError, Record, UsageError, asdict
from drupe_files import stays_inside

if TYPE_CHECKING:
    from drupe_onnx import ir
    from drupe_onnx.package import OnnxPackage

ADAPTERS = "adapters.json"
FOLDER = "adapters"
SUFFIX = ".onnx_adapter"
VERSION = 1
INWARD, OUTWARD = ".lora_A.weight", ".lora_B.weight"
MAKE_AGAIN = "make the package again with drupe optimize --adapters"
WITH_ADAPTER = " with adapter "
"""What stands between the name of a metric and that of the adapter that was active."""


class AdaptedProduct(Record):
    """A product of a graph that adapters add to.

    name: of its inputs, without their endings. tensor, shape: of the base model's matrix, as the checkpoint has it.
    rows: the ranges [first, last) of its rows that the product computes; empty for all. transposed: whether the
    checkpoint holds it as [inputs, outputs]; `rows` counts columns then.
    """

    name: str
    tensor: str
    shape: tuple[int, int]
    rows: tuple[tuple[int, int], ...] = ()
    transposed: bool = False

    @property
    def sizes(self) -> tuple[int, int]:
        """How many inputs and outputs the product has."""
        height, width = reversed(self.shape) if self.transposed else self.shape
        return width, sum(last - first for first, last in self.rows) or height

    @property
    def inputs(self) -> dict[str, tuple[int | None, int | None]]:
        """The graph's inputs for it, with their shapes; None for the rank."""
        inputs, outputs = self.sizes
        return {self.inward: (inputs, None), self.outward: (None, outputs)}

    @property
    def inward(self) -> str:
        """The input for the first matrix, [inputs, rank]."""
        return self.name + INWARD

    @property
    def outward(self) -> str:
        """The input for the second matrix, [rank, outputs]."""
        return self.name + OUTWARD


class Switching(Record):
    """The content of adapters.json.

    element: the type of the inputs. products: those that adapters add to. adapters: the file of each adapter, by name.
    sources: the folder that each adapter was made of, where it is known.
    """

    element: str
    products: tuple[AdaptedProduct, ...]
    adapters: Mapping[str, str]
    sources: Mapping[str, str]

    def content(self) -> bytes:
        """The file's content."""
        return (json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n").encode()

    @classmethod
    def read(cls, content: bytes, where: Path) -> Switching:
        """Raises ModelError for a file that is not one of these."""
        try:
            held: dict[str, Any] = json.loads(content)
            products = tuple(
                AdaptedProduct(
                    each["name"],
                    each["tensor"],
                    (int(each["shape"][0]), int(each["shape"][1])),
                    tuple((int(first), int(last)) for first, last in each["rows"]),
                    bool(each["transposed"]),
                )
                for each in held["products"]
            )
            adapters = {str(name): str(file) for name, file in held["adapters"].items()}
            if outside := [file for file in adapters.values() if not stays_inside(file)]:
                raise ValueError(f"{outside[0]} is not in the package")
            return cls(str(held["element"]), products, adapters, dict(held["sources"]))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ModelError(f"{ADAPTERS} cannot be read: {error}", where=where, cure=MAKE_AGAIN) from error


def switching_in(folder: Path) -> Switching | None:
    """What a package's folder says of its adapters; None for a package without adapters that are switched."""
    path = folder / ADAPTERS
    try:
        return Switching.read(path.read_bytes(), path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def adapters_in(folder: Path) -> dict[str, Path]:
    """The files of a package's adapters, by name; empty for a package without adapters."""
    switching = switching_in(folder)
    return {} if switching is None else {name: folder / file for name, file in switching.adapters.items()}


def chosen_adapter(name: str, folder: Path | None) -> Path:
    """The file of an adapter of a package: by its name there, or an .onnx_adapter file that was made for it later.

    Raises UsageError where there is none, which lists those there are; ModelError for a file that does not fit.
    """
    switching = None if folder is None else switching_in(folder)
    if folder is None or switching is None:
        raise UsageError(
            f"the package has no adapter '{name}', and no others",
            cure="drupe optimize MODEL -o OUT --adapters NAME=DIR makes a package with adapters",
        )
    if name in switching.adapters:
        return folder / switching.adapters[name]
    if name.endswith(SUFFIX) and (file := Path(name).expanduser()).is_file():
        _refuse_misfit(file, switching)
        return file
    there = ", ".join(switching.adapters)
    raise UsageError(f"the package has no adapter '{name}'; it has {there}", cure="name one of them, or a file")


def _refuse_misfit(file: Path, switching: Switching) -> None:
    """Raise ModelError for the first matrix of an adapter's file that is not for this package."""
    from drupe_onnx.adapter_files import read_adapter
    from drupe_onnx.elements import element_name

    wanted = {name: shape for each in switching.products for name, shape in each.inputs.items()}
    for name, tensor in read_adapter(file).items():
        said = f"the adapter's {name} is {element_name(tensor.dtype)} {list(tensor.shape)}"
        if name not in wanted:
            what = f"{said}, and the package has no such input"
        elif not _fits(tensor.shape, wanted[name]) or element_name(tensor.dtype) != switching.element:
            what = f"{said}, and the package takes {switching.element} {_shown(wanted[name])}"
        else:
            continue
        raise ModelError(what, where=file, cure="convert it for this package: drupe convert-adapters DIR --package OUT")


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, int | None]) -> bool:
    return len(shape) == 2 and all(size in (own, None) for own, size in zip(shape, wanted, strict=True))


def _shown(shape: tuple[int | None, int | None]) -> str:
    return f"[{', '.join('rank' if each is None else str(each) for each in shape)}]"


def declared(package: OnnxPackage) -> OnnxPackage:
    """The package, whose places for adapters become optional inputs of the graph. Until then they are constants of it.

    Passes work on a graph without these inputs, so that they need not tell them from those that must be fed.
    """
    held = package.files.get(ADAPTERS)
    if held is None:
        return package
    from drupe_onnx import ir

    switching = Switching.read(held if isinstance(held, bytes) else held.read_bytes(), Path(ADAPTERS))
    graph = package.component.graph
    there = {value.name for value in graph.inputs}
    for each in switching.products:
        for name, shape in each.inputs.items():
            if name not in there:
                value = graph.initializers[name]
                _refuse_other_element(value, switching)
                value.shape = ir.Shape([f"{each.name}.rank" if size is None else size for size in shape])
                graph.inputs.append(value)
    return package


def _refuse_other_element(value: ir.Value, switching: Switching) -> None:
    """Raise ModelError where a pass has changed the type that the graph computes in: the adapters have another."""
    from drupe_onnx.elements import element_name

    if value.dtype is not None and element_name(value.dtype) != switching.element:
        raise ModelError(
            f"the graph computes in {element_name(value.dtype)}, and its adapters are in {switching.element}",
            cure="start from the checkpoint, with --adapters",
        )
