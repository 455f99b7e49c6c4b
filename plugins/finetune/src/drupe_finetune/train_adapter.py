"""The pass `train-adapter`: from a checkpoint to the same checkpoint with a trained adapter beside it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from drupe.api import Context, Form, Model, Notice, Pass, UsageError
from drupe_checkpoints import Checkpoint, checkpoint_of, open_checkpoint
from drupe_checkpoints.adapters.switched import SwitchedAdapter, as_switched_fact, name_problem, switched_of
from drupe_finetune.finetune import refuse_unfit, trained_on
from drupe_finetune.in_plans import keys_of
from drupe_finetune.plugin import TRAIN_ADAPTER
from drupe_finetune.settings import FinetuneConfig, refuse_missing

WHOLE = ("modules_to_save", "trainable_token_indices")
"""Keys of peft's configuration for what no matrices of an adapter hold."""
MERGED = "--train-on without --keep-adapter merges the adapter"


class TrainAdapterConfig(FinetuneConfig):
    """The settings of `train-adapter`: those of `finetune`, and a name."""

    method: Literal["lora", "qlora", "rslora"] = Field(
        "lora", description="what is trained: an adapter of a kind that can be switched at run time"
    )
    name: str = Field(description="what the adapter is called in the package")


class TrainAdapter(Pass):
    """Trains an adapter with peft and transformers' Trainer. The weights stay, and the adapter is switched on later."""

    name = TRAIN_ADAPTER
    summary = "trains an adapter that stays beside the checkpoint, to be switched on at run time (peft, Trainer)"
    Config = TrainAdapterConfig
    requires = Form("hf")
    ensures = Form("hf")
    costly = True
    grows_with = "the number of steps"
    libraries = ()

    @keys_of(TRAIN_ADAPTER)
    def preview(self, model: Model, config: TrainAdapterConfig, context: Context) -> Model:
        """The checkpoint itself."""
        refuse_missing()
        _refuse_unfit(checkpoint_of(model), config)
        return model

    @keys_of(TRAIN_ADAPTER)
    def run(self, model: Model, config: TrainAdapterConfig, context: Context) -> Model:
        from drupe_finetune.writing import write_adapter

        refuse_missing()
        _refuse_unfit(checkpoint_of(model), config)
        model, trained = trained_on(model, config, context)
        folder = context.scratch / config.name
        write_adapter(trained, str(model.location), folder, config)
        beside = (*switched_of(model), SwitchedAdapter(config.name, folder))
        made = model.but(facts=as_switched_fact(beside), payload=open_checkpoint(model.location, switched=beside))
        return made.noticed(*([_rounded(config.name)] if config.in_four_bits else []))


def _refuse_unfit(checkpoint: Checkpoint, config: TrainAdapterConfig) -> None:
    """Raise an error for what cannot be trained, or cannot stay beside the checkpoint."""
    if problem := name_problem(config.name):
        raise UsageError(problem, cure="--keep-adapter NAME")
    refuse_unfit(checkpoint, config)
    if config.name in (each.name for each in checkpoint.switched):
        raise UsageError(f"there is an adapter {config.name} beside the checkpoint already", cure="give another name")
    if config.init == "loftq":
        raise UsageError(
            "an adapter that begins with LoftQ belongs to weights of its own, and not beside the checkpoint's",
            cure=f"drupe finetune MODEL --init loftq -o {config.name}; drupe optimize {config.name}/base --adapters "
            f"{config.name} -o OUT",
        )
    if whole := [key for key in WHOLE if config.peft.get(key)]:
        what = f"{whole[0]} of peft's configuration trains what cannot be switched at run time"
        raise UsageError(what, cure=f"leave it out; {MERGED}")


def _rounded(name: str) -> Notice:
    what = f"{name} was trained on weights in 4 bits; those of this model differ from them by the error of rounding"
    return Notice("adapter", "beside the base", what)
