"""Mistakes in what a user asks for, told before a folder is looked at and before anything is loaded whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from drupe.api import UsageError, nearest
from drupe_checkpoints.wording import listed
from drupe_finetune.arguments import refuse_unknown_to_peft, training_arguments
from drupe_finetune.examples import refuse_unknown_columns
from drupe_finetune.four_bits import refuse_unfit
from drupe_finetune.models import empty_model, is_linear
from drupe_finetune.rows import rows_of
from drupe_finetune.settings import FinetuneConfig
from drupe_finetune.training import quieten


def refuse_mistakes(folder: Path, config: FinetuneConfig) -> None:
    """Raise DrupeError for settings, targets and data that the checkpoint in `folder` cannot be trained with.

    Of the data, the first row that can be read is looked at.
    """
    from transformers import AutoTokenizer

    quieten()
    refuse_unfit(config)
    refuse_unknown_to_peft(config)
    if config.patience and not config.evaluated:
        raise UsageError("--patience needs rows to evaluate on", cure="--evaluated 0.1")
    training_arguments(config, folder, steps=1)
    refuse_unknown_targets(folder, config)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    refuse_unknown_columns(rows_of(config.data), tokenizer, config)


def refuse_unknown_targets(folder: Path, config: FinetuneConfig) -> None:
    """Raise UsageError for a target that names no module of the model. Its weights are not read."""
    if not config.targets:
        return
    modules = dict(empty_model(folder).named_modules())
    for target in config.targets:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            raise _no_module(target, (name for name, each in modules.items() if is_linear(each)))


def _no_module(target: str, linear: Iterable[str]) -> UsageError:
    known = sorted({name.rpartition(".")[2] for name in linear})
    near = nearest(target, known)
    return UsageError(
        f"the model has no module '{target}'" + (f"; did you mean '{near[0]}'?" if near else ""),
        where="--targets",
        cure=f"some of {listed(known, len(known))}",
    )
