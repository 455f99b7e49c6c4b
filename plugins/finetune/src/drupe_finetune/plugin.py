"""The entry module of drupe-finetune: the pass `finetune`, and the command of that name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drupe.api import Ref, hookimpl

if TYPE_CHECKING:
    from drupe.api import Fact


@hookimpl
def drupe_passes() -> list[Ref]:
    return [Ref("finetune", "drupe_finetune.finetune:Finetune", "trains a checkpoint on a data set (peft, Trainer)")]


@hookimpl
def drupe_facts() -> list[Fact]:
    from drupe.api import Fact

    what = "whether a pass of the plan has trained the weights, so that a package is compared with what came of it"
    return [Fact("trained", ("no", "yes"), what, "no")]


@hookimpl
def drupe_commands() -> list[Ref]:
    return [Ref("finetune", "drupe_finetune.command:app", "Train a checkpoint on a data set: an adapter comes out.")]
