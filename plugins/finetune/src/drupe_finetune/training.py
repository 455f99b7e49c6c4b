"""One training run: the model with peft's adapter, transformers' Trainer, and what came of it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drupe.api import Context, ModelError, Record, UsageError
from drupe_finetune.arguments import kind_of_adapter, training_arguments
from drupe_finetune.checkpoints import last_complete, mark_complete
from drupe_finetune.examples import IGNORED, Examples, examples_of
from drupe_finetune.models import loaded_model
from drupe_finetune.rows import read_as, rows_of
from drupe_finetune.settings import FinetuneConfig

if TYPE_CHECKING:
    from drupe_finetune.targets import Targets

Say = Callable[[str], None]


@dataclasses.dataclass
class Trained:
    """A trained model.

    losses: by step. evaluated: losses on the rows that were held out, by step. source: the model that it was made of.
    """

    model: Any
    tokenizer: Any
    examples: Examples
    steps: int
    losses: dict[int, float] = dataclasses.field(default_factory=dict)
    evaluated: dict[int, float] = dataclasses.field(default_factory=dict)
    source: str = ""
    seconds: float = 0.0

    @property
    def rose(self) -> bool:
        """Whether the losses of the last quarter are larger than those of the first. Of a few losses: no."""
        losses = [float(each) for each in self.losses.values()]
        quarter = len(losses) // 4
        return quarter > 1 and sum(losses[-quarter:]) > sum(losses[:quarter])

    def record(self, config: FinetuneConfig) -> dict[str, Any]:
        """What ran, for the file beside the result."""
        from importlib.metadata import version

        from drupe_finetune.four_bits import base_note

        return {
            **({"base": note} if (note := base_note(config)) else {}),
            "model": self.source,
            "settings": {**config.model_dump(mode="json"), **config.chosen},
            "rows": self.examples.rows,
            "left_out": self.examples.bad,
            "steps": self.steps,
            "losses": {str(step): loss for step, loss in self.losses.items()},
            "evaluated": {str(step): loss for step, loss in self.evaluated.items()},
            "seconds": round(self.seconds, 1),
            "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        }


def train(folder: Path, config: FinetuneConfig, work: Path, context: Context, say: Say) -> Trained:
    """Train the checkpoint in `folder`. Checkpoints go to `work`; a complete one that is there is gone on from.

    Raises DrupeError for data and arguments that cannot be used, before the model is loaded where possible; see also
    `refuse_mistakes`.
    """
    from transformers import AutoTokenizer, PrinterCallback, Trainer, set_seed

    started = time.perf_counter()
    quieten()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    examples = examples_of(rows_of(config.data), tokenizer, config)
    for line in filter(None, (read_as(config.data), *examples.told())):
        say(line)
    learned, held_out = _split(examples.sequences, config)
    steps = config.steps(len(learned))
    arguments = training_arguments(config, work, steps)
    set_seed(config.seed)
    model = _prepared(folder, config, say)
    found = Trained(model, tokenizer, examples, steps)
    last = last_complete(work)
    if last is not None:
        say(f"going on from {last.name}, which an earlier run left")
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=learned,
        eval_dataset=held_out or None,
        data_collator=_Padding(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0),
        callbacks=_callbacks(config, context, say),
    )
    trainer.remove_callback(PrinterCallback)
    with context.progress.task("fine-tuning", steps, "step"):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    found.losses = {each["step"]: each["loss"] for each in trainer.state.log_history if "loss" in each}
    found.evaluated = {each["step"]: each["eval_loss"] for each in trainer.state.log_history if "eval_loss" in each}
    _refuse_diverged(found, config)
    found.seconds = time.perf_counter() - started
    return found


def quieten() -> None:
    """What transformers and peft say while they work is for those who program with them."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    for module in ("transformers", "peft", "torch"):
        warnings.filterwarnings("ignore", module=module)


def _split(sequences: Sequence[Any], config: FinetuneConfig) -> tuple[list[Any], list[Any]]:
    """The sequences to learn from, and those that are held out, which the seed chooses."""
    count = round(len(sequences) * config.evaluated)
    if config.evaluated and not 0 < count < len(sequences):
        raise UsageError(
            f"--evaluated {config.evaluated:g} of {len(sequences)} sequences leaves none to "
            + ("evaluate on" if count == 0 else "learn from"),
            cure="another share, or more data",
        )
    import random

    order = list(range(len(sequences)))
    random.Random(config.seed).shuffle(order)
    chosen = set(order[:count])
    kept = [each for at, each in enumerate(sequences) if at not in chosen]
    return kept, [sequences[at] for at in order[:count]]


def _prepared(folder: Path, config: FinetuneConfig, say: Say) -> Any:
    """The model in float32 on a processor, in its own type on a GPU, with the adapter that is trained."""
    import torch

    if config.in_four_bits:
        from drupe_finetune.four_bits import base_in_four_bits

        model = base_in_four_bits(folder, config, say)
    else:
        dtype = "auto" if torch.cuda.is_available() else torch.float32
        model = loaded_model(folder, dtype)
    model.config.use_cache = False
    if config.method != "full" and config.training.get("gradient_checkpointing"):
        model.enable_input_require_grads()  # the adapters inside of a layer get no gradient through frozen inputs
    if config.method == "full":
        return model
    from peft import get_peft_model

    from drupe_finetune.targets import adaptable, refuse_without_effect, targets_of

    targets = targets_of(model, config)
    try:
        adapted = get_peft_model(model, _adapter(config, targets))
        refuse_without_effect(adapted, targets)
        if config.init == "loftq":
            from drupe_finetune.four_bits import begin_with_loftq

            begin_with_loftq(adapted)
        return adapted
    except (ValueError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise ModelError(
            f"peft cannot give the model this adapter: {reason}",
            where=folder,
            cure=("--dropout 0; or " if config.dropout else "")
            + f"--targets, of {', '.join(adaptable(model))}; or another --method",
        ) from error


def _adapter(config: FinetuneConfig, targets: Targets) -> Any:
    """peft's configuration of the adapter."""
    kind = kind_of_adapter(config)
    alpha: Any = config.scaling  # peft computes with it as with a number, and says that it is a whole one
    if config.method in ("loha", "lokr"):
        return kind(
            task_type="CAUSAL_LM",
            r=config.rank,
            alpha=alpha,
            rank_dropout=config.dropout,
            target_modules=targets.modules,
            **config.peft,
        )
    return kind(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=alpha,
        lora_dropout=config.dropout,
        target_modules=targets.modules,
        target_parameters=list(targets.parameters) or None,
        use_rslora=config.method == "rslora",
        use_dora=config.method == "dora",
        **config.peft,
    )


class _Padding(Record):
    """Makes a batch of sequences, filled up to the longest on the right."""

    token: int

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, Any]:
        import torch

        most = max(len(row["input_ids"]) for row in rows)
        filler = {"input_ids": self.token, "labels": IGNORED}
        padded = {key: [row[key] + [value] * (most - len(row[key])) for row in rows] for key, value in filler.items()}
        mask = [[1] * len(row["input_ids"]) + [0] * (most - len(row["input_ids"])) for row in rows]
        return {**{key: torch.tensor(value) for key, value in padded.items()}, "attention_mask": torch.tensor(mask)}


def _callbacks(config: FinetuneConfig, context: Context, say: Say) -> list[Any]:
    from transformers import EarlyStoppingCallback, TrainerCallback

    class Reporting(TrainerCallback):  # type: ignore[misc]
        """Says how far the training is, marks checkpoints as complete, and stops where the user wants it."""

        def __init__(self) -> None:
            self.started = self.first = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started, self.first = time.perf_counter(), state.global_step
            context.progress.advance(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            context.progress.advance(1)
            context.stop_if_cancelled()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            done = state.global_step - self.first
            name = next((each for each in ("loss", "eval_loss") if each in (logs or {})), None)
            if name is None or not done:
                return
            left = (time.perf_counter() - self.started) / done * (state.max_steps - state.global_step)
            label = "loss" if name == "loss" else "loss on rows held out"
            say(f"step {state.global_step} of {state.max_steps}: {label} {float(logs[name]):.4f}, {_time(left)} left")

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    patience = [EarlyStoppingCallback(config.patience)] if config.patience else []
    return [Reporting(), *patience]


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def _refuse_diverged(found: Trained, config: FinetuneConfig) -> None:
    """Raise ModelError where the loss became NaN or infinite: the weights are worthless then."""
    if bad := next((step for step, loss in found.losses.items() if not math.isfinite(float(loss))), None):
        raise ModelError(
            f"the training diverged: the loss at step {bad} is not a number",
            cure=f"--learning-rate {config.rate / 10:g}",
        )
