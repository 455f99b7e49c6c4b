"""The entry module of drupe-huggingface: the kind `hf`, finding models by folder or hub id, and the hub's options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Fact, Model, Option

HUB = "Hugging Face hub"


@hookimpl
def drupe_model_kinds() -> list[Ref]:
    return [Ref("hf", "drupe_checkpoints.kind:HfKind", "a checkpoint as transformers saves it")]


@hookimpl
def drupe_facts() -> list[Fact]:
    from drupe.api import Fact

    return [
        Fact("commit", (), "the commit of the hub repository that the checkpoint was downloaded from"),
        Fact("adapters", (), "the folders and weights of the adapters that are merged into the checkpoint, as JSON"),
        Fact("switched adapters", (), "the names and folders of the adapters that a package switches between, as JSON"),
    ]


@hookimpl
def drupe_options() -> list[Option]:
    from drupe.api import Option

    return [
        Option("revision", "Branch, tag or commit.", group=HUB, source=True),
        Option("token", "Access token.", group=HUB, source=True, secret=True, environment="HF_TOKEN"),
        Option(
            "adapter",
            "Merge an adapter of peft's, a folder or a hub id; DIR:0.5 takes half of its changes; may be repeated.",
            type=Path,
            group="Model and output",
            multiple=True,
            source=True,
        ),
        Option(
            "adapters",
            "Keep a LoRA adapter beside the base model, to be switched at run time; NAME=DIR names it; may be given "
            "several times.",
            type=Path,
            group="Model and output",
            multiple=True,
            source=True,
        ),
        Option("cache_dir", "Where downloads are kept.", type=Path, group=HUB, source=True),
    ]


@hookimpl
def drupe_commands() -> list[Ref]:
    summary = "Convert an adapter of peft's to a file that onnxruntime loads."
    return [Ref("convert-adapters", "drupe_huggingface.convert_adapters:convert_adapters", summary)]


@hookimpl
def drupe_resolve_model(reference: str, options: Mapping[str, Any]) -> Model | None:
    from drupe_huggingface.resolve import resolve

    return resolve(reference, options)
