"""`drupe convert-adapters`: from an adapter of peft's to an .onnx_adapter file."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drupe.api import OutputError, UsageError, counted

if TYPE_CHECKING:
    from drupe_checkpoints.adapters.tensors import AdapterTensors
    from drupe_onnx import Expression

DTYPES = ("float32", "float16", "bfloat16")


def convert_adapters(
    adapter: Annotated[
        Path | None, typer.Argument(metavar="ADAPTER", help="A folder that peft's save_pretrained() made, or a hub id.")
    ] = None,
    adapter_path: Annotated[
        Path | None, typer.Option("-a", "--adapter-path", metavar="<path>", help="The same, as Olive has it.")
    ] = None,
    output_path: Annotated[
        Path | None,
        typer.Option("-o", "--output-path", "--output", metavar="<file>", help="The .onnx_adapter file to make."),
    ] = None,
    package: Annotated[
        Path | None,
        typer.Option(metavar="<folder>", help="The package that it is for: its inputs decide on names and types."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar=f"<{'|'.join(DTYPES)}>", help="The type of the values; without --package, float32 by default."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Convert an adapter of peft's to an .onnx_adapter file, which onnxruntime and onnxruntime-genai load.

    With --package, the file is for this package, which was made with --adapters for the same base model, and an adapter
    that does not fit is refused. Without it, the names are those of the base model's modules, as Olive has them.
    """
    from drupe_checkpoints.adapters.reference import adapter_folder
    from drupe_checkpoints.adapters.switched import SwitchedAdapter, switchable
    from drupe_files.whole_files import whole_file
    from drupe_huggingface.resolve import adapter_on_the_hub
    from drupe_onnx.adapter_files import write_adapter

    folder = _one(adapter, adapter_path)
    output = _output(output_path, folder, force)
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype} is no type of an adapter", cure=f"--dtype {' or '.join(DTYPES)}")
    adapter_home = adapter_folder(str(folder), functools.partial(adapter_on_the_hub, options={}))
    tensors = switchable(SwitchedAdapter(adapter_home.name, adapter_home))
    found = _by_module(tensors, dtype) if package is None else _for_package(tensors, package, dtype)
    output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(output) as draft:
        write_adapter(draft, found)
    whose = "the base model's modules" if package is None else f"the package {package}"
    print(f"{output}: {counted(len(tensors.changes), 'module')}, {output.stat().st_size / 1e6:.3g} MB, for {whose}")


def _one(argument: Path | None, option: Path | None) -> Path:
    if argument is not None and option is not None and argument != option:
        raise UsageError(f"two adapters are named: {argument} and {option}", cure="name one")
    found = argument or option
    if found is None:
        raise UsageError("no adapter is named", cure="drupe convert-adapters ADAPTER -o FILE")
    return found


def _output(path: Path | None, adapter: Path, force: bool) -> Path:
    """The file to make. Raises UsageError where none is named, and OutputError for one that may not be replaced."""
    from drupe_onnx.switching import SUFFIX

    if path is None:
        raise UsageError("no file is named", cure=f"drupe convert-adapters {adapter} -o NAME{SUFFIX}")
    output = path.expanduser()
    output = output if output.suffix == SUFFIX else output.with_name(output.name + SUFFIX)
    if output.exists() and not force:
        raise OutputError(f"there is a file {output} already", cure="choose another one, or add --force to replace it")
    return output


def _by_module(tensors: AdapterTensors, dtype: str | None) -> dict[str, Expression]:
    """The matrices by the names of the base model's modules."""
    from drupe_checkpoints.adapters.switched import matrices_of
    from drupe_onnx import ir
    from drupe_onnx.switching import AdaptedProduct

    products, places = [], {}
    for module, parts in tensors.changes.items():
        shape = parts["lora_B"].shape[0], parts["lora_A"].shape[1]
        products.append(AdaptedProduct(module, f"{module}.weight", shape))
        places[f"{module}.weight"] = f"{module}.weight"
    return matrices_of(tensors, products, _type(dtype or DTYPES[0], ir), places)


def _for_package(tensors: AdapterTensors, package: Path, dtype: str | None) -> dict[str, Expression]:
    """The matrices that a package's inputs take. Raises UsageError for a package without such inputs."""
    from drupe_checkpoints.adapters.switched import matrices_of, places_in_package
    from drupe_onnx import ir
    from drupe_onnx.switching import switching_in

    switching = switching_in(package.expanduser())
    if switching is None:
        raise UsageError(
            f"{package} is no package with adapters",
            cure="name one that drupe optimize MODEL -o OUT --adapters NAME=DIR made, or leave --package out",
        )
    if dtype not in (None, switching.element):
        raise UsageError(f"--dtype {dtype} does not fit the package, whose adapters are {switching.element}")
    places = places_in_package(tensors, switching.products)
    return matrices_of(tensors, switching.products, _type(switching.element, ir), places)


def _type(name: str, ir: Any) -> Any:
    types: Mapping[str, Any] = {
        "float32": ir.DataType.FLOAT,
        "float16": ir.DataType.FLOAT16,
        "bfloat16": ir.DataType.BFLOAT16,
    }
    return types[name]
