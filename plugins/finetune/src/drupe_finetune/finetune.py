"""The pass `finetune`: from a checkpoint to the checkpoint that has learned from a data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from drupe.api import Context, Form, Model, ModelError, Pass
from drupe_blockquant.torch_threads import torch_threads
from drupe_checkpoints import Checkpoint, checkpoint_of, merged_copy, open_checkpoint
from drupe_checkpoints.tasks import TEXT
from drupe_finetune.in_plans import keys_of
from drupe_finetune.plugin import FINETUNE
from drupe_finetune.settings import FinetuneConfig, refuse_idle, refuse_missing

if TYPE_CHECKING:
    from drupe_finetune.training import Trained

TRAINED = {"trained": "yes"}


class Finetune(Pass):
    """Trains an adapter with peft and transformers' Trainer, and merges it; or trains all weights."""

    name = FINETUNE
    summary = "trains a checkpoint on a data set (peft, Trainer)"
    revision = 2
    Config = FinetuneConfig
    requires = Form("hf")
    ensures = Form("hf", TRAINED)
    costly = True
    grows_with = "the number of steps"
    libraries = ()

    @keys_of(FINETUNE)
    def preview(self, model: Model, config: FinetuneConfig, context: Context) -> Model:
        """The checkpoint itself: what is trained keeps its names and shapes."""
        refuse_missing()
        refuse_beside(checkpoint_of(model))
        refuse_unfit(checkpoint_of(model), config)
        return model.but(facts=TRAINED)

    @keys_of(FINETUNE)
    def run(self, model: Model, config: FinetuneConfig, context: Context) -> Model:
        from drupe_finetune.writing import merged, with_own_base, write_adapter, write_note, write_whole

        refuse_missing()
        refuse_beside(checkpoint_of(model))
        model, trained = trained_on(model, config, context)
        folder = context.scratch / "trained"
        if config.method == "full":
            folder.mkdir()
            write_whole(trained, model.location, folder, config)
            return model.but(location=folder, payload=open_checkpoint(folder), facts=TRAINED)
        adapter = context.scratch / "adapter"
        write_adapter(trained, str(model.location), adapter, config)
        base = with_own_base(trained, model, context.scratch / "own-base", config)
        made = merged(base, adapter, folder, context)
        write_note(trained, folder, config)
        return made.but(facts=TRAINED)


def trained_on(model: Model, config: FinetuneConfig, context: Context) -> tuple[Model, Trained]:
    """The model as it was trained, with its own adapters merged, and what came of it. Mistakes are told first."""
    with torch_threads(context.threads):
        from drupe_finetune.arguments import refuse_unknown
        from drupe_finetune.mistakes import refuse_mistakes
        from drupe_finetune.training import train

        model = ready_to_train(model, context.scratch / "base", context)
        refuse_unknown(config)
        refuse_mistakes(model.location, config)
        trained = train(model.location, config, context.scratch / "checkpoints", context, tell)
    trained.source = str(model.location)
    return model, trained


def ready_to_train(model: Model, folder: Path, context: Context) -> Model:
    """The model with its weights here, and its own adapters merged into a copy in `folder`."""
    checkpoint = checkpoint_of(model)
    refuse_untrainable(checkpoint)
    checkpoint.tensors()  # downloads them, and refuses broken files
    return merged_copy(model, folder, context)


def refuse_beside(checkpoint: Checkpoint) -> None:
    """Raise ModelError where adapters lie beside a checkpoint whose weights are trained."""
    if checkpoint.switched:
        names = ", ".join(each.name for each in checkpoint.switched)
        raise ModelError(
            f"the adapters beside the checkpoint ({names}) belong to its weights, which training changes",
            where=checkpoint.folder,
            cure="--keep-adapter NAME keeps what is trained beside them; or leave one of the two out",
        )


def refuse_unfit(checkpoint: Checkpoint, config: FinetuneConfig) -> None:
    """Raise an error for what can be told before anything is read: of the checkpoint, and of settings."""
    refuse_untrainable(checkpoint)
    refuse_idle(config)
    if config.in_four_bits:
        from drupe_finetune.four_bits import refuse_unfit_quantizer

        refuse_unfit_quantizer(config)


def refuse_untrainable(checkpoint: Checkpoint) -> None:
    """Raise ModelError for a checkpoint that writes no text, is quantized, or is no folder for transformers."""
    if checkpoint.task not in (TEXT, None):
        raise ModelError(
            f"the model is for {checkpoint.task}, and drupe finetune trains models that write text",
            where=checkpoint.folder,
            cure="train it with another tool, such as sentence-transformers for embeddings; or choose a decoder",
        )
    if checkpoint.config.path.suffix == ".gguf":
        raise ModelError(
            "a GGUF file cannot be trained",
            where=checkpoint.config.path,
            cure="give the checkpoint that it was made of",
        )
    if checkpoint.is_packed:
        raise ModelError(
            "the checkpoint is already quantized, and quantized weights are not trained here",
            where=checkpoint.folder,
            cure="start from the checkpoint in floating point",
        )


def tell(line: str) -> None:
    """Say something on standard error: standard output belongs to results."""
    print(line, file=sys.stderr, flush=True)
