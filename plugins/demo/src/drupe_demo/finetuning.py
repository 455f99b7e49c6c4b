"""`drupe demo finetune`: the built-in model learns from 200 rows, and is optimized with what it has learned."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import drupe
from drupe.api import Record, asdict
from drupe_demo import MODEL, QUESTIONS, QUESTIONS_HELDOUT

if TYPE_CHECKING:
    from drupe.api import Metric

TEMPLATE = "# {question}\n{answer}\n"
TRAINING = {"max_steps": 80, "batch_size": 8, "learning_rate": 5e-3}
ASKED = ("How do I sort tokens?", "How do I get the last item of results?", "How do I print tokens?")
"""Questions of the kind that is learned, about names that no row has."""
ANSWER_TOKENS = 24
INSTALL = "pip install 'drupe[finetune]'"


class Learner(Record):
    """A package, before or after training. perplexity: of questions and answers that are not among the rows."""

    bytes: int
    perplexity: float
    answers: dict[str, str]


def finetune_demo(
    precision: str, output: Path | None, *, force: bool, as_json: bool, say: Callable[[str], None]
) -> None:
    """Train, optimize, compare, and show what changed."""
    from drupe.api import Step

    started = time.perf_counter()
    _refuse_without_training()
    from drupe_files import scratch

    with scratch() as folder:
        before, trained, after = folder / "before", folder / "trained", output or folder / "after"
        say("packaging the model as it is")
        first = drupe.optimize(MODEL, before, precision=precision, verify=False)
        say(f"learning from {QUESTIONS.name}")
        learning = Step("finetune", {"data": str(QUESTIONS), "template": TEMPLATE, **TRAINING})
        drupe.optimize(MODEL, trained, passes=[learning], verify=False)
        say("packaging what it has become")
        second = drupe.optimize(trained, after, precision=precision, force=force)
        say("asking both")
        sides = _learner(before, first.bytes), _learner(after, second.bytes)
        note = json.loads((trained / "finetune.json").read_bytes())
    losses = list(note["losses"].values())
    seconds = time.perf_counter() - started
    if as_json:
        found = {"before": asdict(sides[0]), "after": asdict(sides[1]), "losses": losses}
        print(json.dumps({**found, "rows": note["rows"], "check": dict(second.check.metrics)}, indent=1))
    else:
        _show(sides, losses, note["rows"], second.check.metrics.get("kl_divergence"), seconds, output)


def _refuse_without_training() -> None:
    from drupe.api import RuntimeMissing, registry

    if "finetune" not in registry().passes:
        raise RuntimeMissing("the demo trains the model, and no installed plugin does that", cure=INSTALL)


def _learner(package: Path, size: int) -> Learner:
    from drupe_decoding import Generation

    metrics: tuple[Metric, ...] = drupe.evaluate(package, evaluation_data=str(QUESTIONS_HELDOUT))
    perplexity = next(each.value for each in metrics if each.name == "perplexity")
    with drupe.open(package) as session:
        told = {each: session.generate(f"# {each}\n", Generation(max_new_tokens=ANSWER_TOKENS)) for each in ASKED}
    return Learner(size, perplexity, {each: text.strip().partition("\n")[0] for each, text in told.items()})


def _show(
    sides: tuple[Learner, Learner], losses: list[float], rows: int, kl: float | None, seconds: float, kept: Path | None
) -> None:
    from rich.console import Console
    from rich.markup import escape

    before, after = sides
    console = Console(highlight=False)
    console.print(f"The model learned from {rows} rows: the loss fell from {losses[0]:.2f} to {losses[-1]:.2f}.")
    console.print(f"perplexity of other questions: {before.perplexity:.1f} before, {after.perplexity:.1f} after")
    for question in ASKED:
        console.print(f"\n[bold]# {escape(question)}[/bold]")
        for label, side in (("before", before), ("after", after)):
            console.print(f"  {label:7} {escape(side.answers[question])}", no_wrap=True, overflow="ellipsis")
    compared = "" if kl is None else f"; KL divergence from the trained model: {kl:.4f}"
    console.print(f"\nThe package has {after.bytes / 1e6:.1f} MB{compared}.")
    console.print(f"The whole demo took {seconds:.0f} s.")
    if kept:
        console.print(f"drupe generate {escape(str(kept))}", soft_wrap=True)
