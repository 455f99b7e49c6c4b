"""Writing what a training made: an adapter in peft's format, or a whole checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from drupe.api import Context, Model
from drupe_checkpoints import checkpoint_of, merged_copy, open_checkpoint
from drupe_checkpoints.adapters.applied import with_adapters
from drupe_checkpoints.adapters.reference import AdapterReference, as_fact
from drupe_finetune.settings import FinetuneConfig
from drupe_finetune.training import Trained

NOTE = "finetune.json"
"""The file beside a result that says how it was made."""
BASE = "base"
"""The folder of an adapter with the checkpoint that it belongs to, where that is not the one that the user named."""
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".safetensors.index.json")


def write_adapter(trained: Trained, base: str, folder: Path, config: FinetuneConfig) -> None:
    """Write the adapter, as peft reads it. base: the model that it is for, as the user named it."""
    trained.model.peft_config["default"].base_model_name_or_path = base
    trained.model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a form to fill in
    write_note(trained, folder, config)


def named_base(config: FinetuneConfig, reference: str, output: Path) -> str:
    """The model that an adapter in `output` is for: the one that the user named, or with LoftQ, its own base."""
    return str(output / BASE) if config.init == "loftq" else reference


def with_own_base(trained: Trained, source: Model, folder: Path, config: FinetuneConfig) -> Model:
    """The model that an adapter belongs to: with LoftQ, the weights that it was trained on, written into `folder`."""
    if config.init != "loftq":
        return source
    from drupe_finetune.four_bits import write_base

    write_base(trained.model, source.location, folder, config)
    return source.but(location=folder, payload=open_checkpoint(folder))


def write_whole(trained: Trained, source: Path, folder: Path, config: FinetuneConfig) -> None:
    """Write a model of which all weights were trained, with the other files of its source."""
    import torch

    stated = json.loads((source / "config.json").read_bytes())
    dtype = str(stated.get("dtype") or stated.get("torch_dtype") or "float32").removeprefix("torch.")
    trained.model.to(getattr(torch, dtype)).save_pretrained(str(folder))
    for path in source.iterdir():
        if path.is_file() and not path.name.endswith(WEIGHTS):
            shutil.copyfile(path, folder / path.name)
    write_note(trained, folder, config)


def write_note(trained: Trained, folder: Path, config: FinetuneConfig) -> None:
    (folder / NOTE).write_text(json.dumps(trained.record(config), indent=1) + "\n", encoding="utf-8")


def merged(model: Model, adapter: Path, folder: Path, context: Context) -> Model:
    """The model with a trained adapter merged into a checkpoint of its own in `folder`."""
    references = (AdapterReference(adapter.absolute()),)
    held = model.but(facts=as_fact(references), payload=with_adapters(checkpoint_of(model), references))
    return merged_copy(held, folder, context)
