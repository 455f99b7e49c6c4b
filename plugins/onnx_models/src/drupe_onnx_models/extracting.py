"""`drupe extract-adapters`: the base model of an ONNX model with LoRA in it, and the adapter beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import drupe
from drupe.api import Step, UsageError
from drupe_onnx_models.extract_adapters import ExtractAdapters


def extract_adapters(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="An .onnx file or a folder with one, with LoRA in the graph.")
    ] = None,
    named: Annotated[
        str | None, typer.Option("-m", "--model-name-or-path", metavar="<model>", help="The same, as Olive has it.")
    ] = None,
    output_path: Annotated[
        Path | None, typer.Option("-o", "--output-path", "--output", metavar="<path>", help="Folder to make.")
    ] = None,
    adapter: Annotated[str, typer.Option(metavar="<name>", help="What the adapter is called.")] = "adapter",
    force: Annotated[bool, typer.Option("--force", help="Replace a folder that is there.")] = False,
) -> None:
    """Take LoRA out of an ONNX model: the base model comes out, and the adapter as an .onnx_adapter file.

    The adapter is switched on at run time, as those of drupe optimize --adapters.
    """
    reference = model or named
    if reference is None or (model is not None and named is not None and model != named):
        raise UsageError("name one model", cure="drupe extract-adapters MODEL -o OUT")
    if output_path is None:
        raise UsageError("no output is named", cure=f"drupe extract-adapters {reference} -o OUT")
    passes = [Step(ExtractAdapters.name, {"adapter": adapter})]
    made = drupe.optimize(reference, output_path, force=force, passes=passes, verify=False)
    file = f"adapters/{adapter}.onnx_adapter"
    size = (made.output / file).stat().st_size
    print(f"{made.output}: the base model; {file}: {size / 1e6:.3g} MB")
