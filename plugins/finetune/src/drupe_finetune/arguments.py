"""Arguments that go through to transformers and peft, and those that fine-tuning sets itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from drupe.api import UsageError, nearest
from drupe_finetune.settings import FinetuneConfig

PREFIX = "--training."
PEFT = "--peft."
PREFIXES: Mapping[str, str] = {"training": PREFIX, "peft": PEFT}
"""What stands before an argument of transformers' TrainingArguments, and of peft's configuration of an adapter."""
LOGGED = 20
"""How often in a run the loss is said."""
OWN: Mapping[str, str] = {
    "output_dir": "-o", "seed": "--seed", "max_steps": "--max-steps", "num_train_epochs": "--epochs",
    "per_device_train_batch_size": "--batch-size", "resume_from_checkpoint": "the same command again",
    "save_steps": "--save-every", "save_strategy": "--save-every", "eval_strategy": "--evaluated",
    "load_best_model_at_end": "--patience", "metric_for_best_model": "--patience", "report_to": "finetune.json",
    "push_to_hub": "the hub's own program", "remove_unused_columns": "nothing", "disable_tqdm": "--quiet",
}  # fmt: skip
"""The arguments that fine-tuning sets itself, with what stands for each."""
OWN_OF_PEFT: Mapping[str, str] = {
    "r": "--rank", "alpha": "--alpha", "lora_alpha": "--alpha", "lora_dropout": "--dropout",
    "rank_dropout": "--dropout", "target_modules": "--targets", "target_parameters": "--targets",
    "task_type": "nothing", "peft_type": "--method",
    "use_rslora": "--method rslora", "use_dora": "--method dora", "loftq_config": "--init loftq",
    "inference_mode": "nothing",
}  # fmt: skip
"""The same of peft's configuration of an adapter."""


def without_arguments(words: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """A command line without `--training.NAME VALUE` and `--training.NAME=VALUE`, and these by name; so with --peft."""
    left, rest = list(words), []
    found: dict[str, dict[str, Any]] = {key: {} for key in PREFIXES}
    while left:
        word = left.pop(0)
        key = next((each for each, prefix in PREFIXES.items() if word.startswith(prefix)), None)
        if key is None:
            rest.append(word)
            continue
        name, equals, value = word.removeprefix(PREFIXES[key]).partition("=")
        if not equals:
            value = left.pop(0) if left and not left[0].startswith("--") else "true"
        found[key][name.replace("-", "_")] = plain(value)
    return rest, found


def plain(text: str) -> Any:
    """A typed value: a number, true, false, a JSON value, or text."""
    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def refuse_unknown(config: FinetuneConfig) -> None:
    """Raise UsageError for keys that TrainingArguments or peft's configuration does not have, or that are set
    elsewhere, and for values of a wrong type.
    """
    from transformers import TrainingArguments

    _refuse(config.training, TrainingArguments, "transformers'", PREFIX, OWN)
    if config.peft and config.method == "full":
        raise UsageError(f"{PEFT}{next(iter(config.peft))} has no effect with --method full", cure="leave it out")
    if config.peft:
        _refuse(config.peft, kind_of_adapter(config), "peft's", PEFT, OWN_OF_PEFT)


def kind_of_adapter(config: FinetuneConfig) -> Any:
    """peft's class for the configuration of the adapter."""
    import peft

    return {"loha": peft.LoHaConfig, "lokr": peft.LoKrConfig}.get(config.method, peft.LoraConfig)


def _refuse(given: Mapping[str, Any], kind: Any, whose: str, prefix: str, own: Mapping[str, str]) -> None:
    """Raise UsageError for the first key that a dataclass does not have, or that fine-tuning sets itself."""
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    types = get_type_hints(kind)
    for name, value in given.items():
        if name not in known:
            near = nearest(name, known)
            raise UsageError(
                f"{whose} {kind.__name__} has no '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""),
                where=f"{prefix}{name}",
                cure=f"leave it out, or look it up in {whose} documentation",
            )
        if name in own:
            raise UsageError(f"{prefix}{name} is set by drupe", cure=f"use {own[name]} instead")
        _refuse_other_type(f"{prefix}{name}", value, types[name])


def _refuse_other_type(name: str, value: Any, wanted: Any) -> None:
    """The libraries take any value, and the training would fail with it."""
    try:
        TypeAdapter(wanted, config={"arbitrary_types_allowed": True}).validate_python(value)
    except PydanticUserError:  # a class of peft's own, which only Python makes
        return
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UsageError(f"{name} cannot be {value!r}: {reason[:1].lower()}{reason[1:]}", where=name) from error


def training_arguments(config: FinetuneConfig, folder: Path, steps: int) -> Any:
    """The TrainingArguments of a run of `steps` steps, whose checkpoints go to `folder`; see also `refuse_unknown`."""
    from transformers import TrainingArguments

    evaluating = config.evaluated > 0
    own: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.batch_size,
        "learning_rate": config.rate,
        "restore_callback_states_from_checkpoint": True,  # the count of evaluations that --patience waits for
        "seed": config.seed,
        "logging_steps": max(1, steps // LOGGED),
        "save_strategy": "steps",
        "save_steps": min(config.save_every, steps),
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "logging_nan_inf_filter": False,
    }
    if evaluating:
        own |= {"eval_strategy": "steps", "eval_steps": min(config.save_every, steps)}
    if config.patience:
        own |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    try:
        return TrainingArguments(**{**own, **config.training})
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(
            f"transformers' TrainingArguments refuses them: {' '.join(str(error).split())}",
            cure=f"change or leave out {', '.join(f'{PREFIX}{name}' for name in config.training) or 'the options'}",
        ) from error
