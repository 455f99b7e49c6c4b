"""The entry module of drupe-finetune: the pass `finetune`, and the command of that name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Claim, Fact, Model, Option, Request, Stage, Target

FINETUNE, TRAIN_ON = "finetune", "train_on"


@hookimpl
def drupe_passes() -> list[Ref]:
    return [Ref(FINETUNE, "drupe_finetune.finetune:Finetune", "trains a checkpoint on a data set (peft, Trainer)")]


@hookimpl
def drupe_facts() -> list[Fact]:
    from drupe.api import Fact

    what = "whether a pass of the plan has trained the weights, so that a package is compared with what came of it"
    return [Fact("trained", ("no", "yes"), what, "no")]


@hookimpl
def drupe_options() -> list[Option]:
    from drupe.api import Option

    help = "Train the checkpoint on this data first, as drupe finetune does; --set finetune.KEY=VALUE says how."
    return [Option(TRAIN_ON, help, group="Model and output")]


@hookimpl
def drupe_claim(stage: Stage, model: Model, target: Target, request: Request) -> Claim | None:
    from drupe.api import Claim, Step

    if stage.name != "train" or model.kind != "hf" or TRAIN_ON not in request.options:
        return None
    return Claim(FINETUNE, (Step(FINETUNE, options={"data": TRAIN_ON}),))


@hookimpl
def drupe_commands() -> list[Ref]:
    return [Ref(FINETUNE, "drupe_finetune.command:app", "Train a checkpoint on a data set: an adapter comes out.")]
