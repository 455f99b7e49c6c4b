"""The entry module of drupe-finetune: the passes that train, and the command `finetune`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Claim, Fact, Model, Option, Request, Stage, Target

FINETUNE, TRAIN_ADAPTER = "finetune", "train-adapter"
TRAIN_ON, KEEP_ADAPTER = "train_on", "keep_adapter"


@hookimpl
def drupe_passes() -> list[Ref]:
    beside = "trains an adapter that stays beside the checkpoint, to be switched on at run time (peft, Trainer)"
    return [
        Ref(FINETUNE, "drupe_finetune.finetune:Finetune", "trains a checkpoint on a data set (peft, Trainer)"),
        Ref(TRAIN_ADAPTER, "drupe_finetune.train_adapter:TrainAdapter", beside),
    ]


@hookimpl
def drupe_facts() -> list[Fact]:
    from drupe.api import Fact

    what = "whether a pass of the plan has trained the weights, so that a package is compared with what came of it"
    return [Fact("trained", ("no", "yes"), what, "no")]


@hookimpl
def drupe_options() -> list[Option]:
    from drupe.api import Option

    help = "Train the checkpoint on this data first, as drupe finetune does; --set finetune.KEY=VALUE says how."
    keeping = (
        "Keep the adapter that --train-on trains beside the base model, under this name, to be switched at run time; "
        "--set train-adapter.KEY=VALUE says how it is trained."
    )
    return [
        Option(TRAIN_ON, help, group="Model and output"),
        Option(KEEP_ADAPTER, keeping, group="Model and output"),
    ]


@hookimpl
def drupe_claim(stage: Stage, model: Model, target: Target, request: Request) -> Claim | None:
    from drupe.api import Claim, Step

    if stage.name != "train" or model.kind != "hf" or TRAIN_ON not in request.options:
        return None
    if KEEP_ADAPTER in request.options:
        options = {"data": TRAIN_ON, "name": KEEP_ADAPTER}
        return Claim(TRAIN_ADAPTER, (Step(TRAIN_ADAPTER, options=options),))
    return Claim(FINETUNE, (Step(FINETUNE, options={"data": TRAIN_ON}),))


@hookimpl
def drupe_commands() -> list[Ref]:
    return [Ref(FINETUNE, "drupe_finetune.command:app", "Train a checkpoint on a data set: an adapter comes out.")]
