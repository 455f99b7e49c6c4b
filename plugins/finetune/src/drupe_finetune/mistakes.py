"""Mistakes in what a user asks for, told before a folder is looked at and before anything is loaded whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drupe.api import UsageError, nearest
from drupe_checkpoints.adapters.experts import is_of_all_experts
from drupe_checkpoints.wording import listed
from drupe_finetune.arguments import training_arguments
from drupe_finetune.examples import refuse_unknown_columns
from drupe_finetune.four_bits import refuse_unfit_quantizer
from drupe_finetune.models import empty_model
from drupe_finetune.rows import rows_of
from drupe_finetune.settings import FinetuneConfig
from drupe_finetune.targets import adaptable, targets_of
from drupe_finetune.training import quieten


def refuse_mistakes(folder: Path, config: FinetuneConfig) -> None:
    """Raise DrupeError for settings, targets and data that the checkpoint in `folder` cannot be trained with.

    Of the data, the first row that can be read is looked at. Names of arguments are those of `refuse_unknown`.
    """
    from transformers import AutoTokenizer

    quieten()
    refuse_unfit_quantizer(config)
    if config.patience and not config.evaluated:
        raise UsageError("--patience needs rows to evaluate on", cure="--evaluated 0.1")
    training_arguments(config, folder, steps=1)
    refuse_unknown_targets(folder, config)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    refuse_unknown_columns(rows_of(config.data), tokenizer, config)


def refuse_unknown_targets(folder: Path, config: FinetuneConfig) -> None:
    """Raise UsageError for a target that is not in the model, or cannot be trained. Weights are not read.

    In a model with experts, peft also knows their names in transformers 4: these are looked at when it has been loaded.
    """
    if not config.targets:
        return
    model = empty_model(folder)
    unknown = targets_of(model, config).unknown
    if unknown and not any(is_of_all_experts(name) for name, _ in model.named_parameters()):
        raise _unknown(unknown[0], adaptable(model))


def _unknown(target: str, known: Sequence[str]) -> UsageError:
    near = nearest(target, known)
    return UsageError(
        f"the model has no module '{target}'" + (f"; did you mean '{near[0]}'?" if near else ""),
        where="--targets",
        cure=f"some of {listed(known, len(known))}",
    )
